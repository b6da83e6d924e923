"""Images as files of a kind, and as the library decodes them."""

import io

import numpy as np
from PIL import Image

from furs_jax.data.decode import Box, decode_crop


def encoded(image: Image.Image | np.ndarray, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def whole(data: bytes, size: int = 32) -> np.ndarray:
    out = np.zeros((size, size, 3), np.uint8)
    decode_crop(data, lambda height, width: Box(0, 0, height, width), out)
    return out.astype(int)
