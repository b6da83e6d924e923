"""Pixels as every decoder must give them: of 8 bits where white is known, upright, not too many."""

from typing import Any

import numpy as np

# 8192 x 8192: full-frame cameras have up to 61 million, most phones 50. A thread takes up to 14
# bytes for each while it decodes (measured), 0.9 GB.
MAX_PIXELS = 1 << 26
_ORIENTATION = 0x0112  # EXIF tag


class UnsupportedError(ValueError):
    """An image that may be sound, but is too large, or of a kind that can't be read for certain."""


def eight_bits(values: np.ndarray, bits: int = 16, black: bool = False) -> np.ndarray:
    """Pixel values as uint8.

    Booleans are black and white; unsigned 16-bit values lose their lower bits; floats count from 0
    (black) to 1 (white), as is usual; other integers hold 8-bit values, as NumPy's int32 often do.

    Args:
      bits: that the values of a uint16 array use: 12 of some cameras and microscopes.
      black: whether an array of them may end up black, as one of 8-bit values would.

    Raises:
      UnsupportedError: values lie outside that range, so that their white is unknown.
    """
    if values.dtype == np.uint8 or not values.size:
        return values.astype(np.uint8, copy=False)
    if values.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind not in "uif":
        raise UnsupportedError(f"pixels of the type {values.dtype} are not read")
    low, high = values.min(), values.max()
    if values.dtype.kind == "f":
        # Comparisons with NaN are false.
        if not (low >= 0 and high <= 1):
            raise UnsupportedError(
                f"its floats span {low:g} to {high:g}, where only 0 (black) to 1 (white) is read; "
                "scale them, or save it with 8 bits"
            )
        return _scaled(values)
    if values.dtype == np.uint16:
        if not black and 0 < high < 1 << (bits - 8):
            raise UnsupportedError(
                f"its {bits}-bit values end at {high}, so that it would be black in 8 bits; save "
                "it with 8 bits"
            )
        return (values >> (bits - 8)).astype(np.uint8)
    if low < 0 or high > 255:
        raise UnsupportedError(
            f"its {values.dtype} values span {low} to {high}, where only 0 to 255 is read; save it "
            "with 8 or 16 bits"
        )
    return values.astype(np.uint8)


def _scaled(values: np.ndarray) -> np.ndarray:
    """Floats of [0, 1] to bytes, row by row: no second image of floats."""
    out = np.empty(values.shape, np.uint8)
    for i, row in enumerate(values):
        out[i] = np.round(255 * row)
    return out


def check_size(height: int, width: int) -> None:
    """Raises UnsupportedError where an image's header claims more than MAX_PIXELS."""
    if height * width > MAX_PIXELS:
        raise UnsupportedError(
            f"{width}x{height} pixels, more than the {MAX_PIXELS:,} that are read; shrink it"
        )


def orientation(image: Any) -> int:
    """Of a Pillow image, as EXIF has it: 1 to 8; 1 (upright) where nothing can be read."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1  # damaged EXIF: the pixels may be sound
    return found if found in range(1, 9) else 1


def upright(pixels: np.ndarray, turned: int) -> np.ndarray:
    """A view of the pixels, turned and mirrored from EXIF's orientation `turned`."""
    if turned in (3, 4, 6, 7):
        pixels = pixels[::-1]
    if turned in (2, 3, 7, 8):
        pixels = pixels[:, ::-1]
    return pixels.swapaxes(0, 1) if turned > 4 else pixels
