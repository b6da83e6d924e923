"""Makes a tree of photo-like JPEG files, to time input on: no photos need to be at hand.

    python benchmarks/photos.py DIR --images=2000 --classes=10

writes DIR/train/CLASS/*.JPEG and a tenth as many to DIR/val: noise of several scales (a natural
image's spectrum falls with the frequency), edges and a gradient, about 500x375 pixels and 48 to
115 kB each, 79 on average (of 2,200).
"""

import argparse
import io
import pathlib

import numpy as np
from PIL import Image, ImageDraw


def photo(
    rng: np.random.Generator, height: int = 375, width: int = 500, hue: float = 0.0
) -> Image.Image:
    """One photo-like RGB image; `hue` (0 to 1) is that of the shapes in it."""
    pixels = np.zeros((height, width, 3), np.float32)
    for octave in range(8):
        scale = 2**octave
        shape = (height // scale + 2, width // scale + 2)
        # Colour varies less than brightness does, and not at the finest scales.
        noise = rng.normal(size=(*shape, 1)) + (octave > 1) * 0.4 * rng.normal(size=(*shape, 3))
        pixels += 2.8 * scale**0.6 * _enlarged(np.broadcast_to(noise, (*shape, 3)), height, width)
    slope = rng.normal(0, 40, (2, 3))
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    pixels += y[..., None] * slope[0] + x[..., None] * slope[1] + rng.uniform(90, 160, 3)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    shapes = Image.new("L", image.size)
    draw = ImageDraw.Draw(shapes)
    for _ in range(6):
        corner, size = rng.uniform(0, (width, height)), rng.uniform(20, 160, 2)
        box = [*(corner - size / 2), *(corner + size / 2)]
        (draw.ellipse, draw.rectangle)[rng.integers(2)](box, fill=int(rng.integers(40, 160)))
    colour = Image.new("HSV", image.size, (int(255 * hue), *map(int, rng.integers(128, 256, 2))))
    return Image.composite(colour.convert("RGB"), image, shapes)


def _enlarged(noise: np.ndarray, height: int, width: int) -> np.ndarray:
    channels = [Image.fromarray(channel.astype(np.float32)) for channel in np.moveaxis(noise, 2, 0)]
    resized = [c.resize((width, height), Image.Resampling.BICUBIC) for c in channels]
    return np.stack([np.asarray(c) for c in resized], axis=-1)


def jpeg(image: Image.Image, quality: int = 96) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def make_tree(
    folder: pathlib.Path, images: int, classes: int, size: tuple[int, int] = (375, 500)
) -> None:
    """Writes `images` training files, evenly over the classes, and a tenth as many to val.

    Heights and widths vary by a fifth around `size`, and every fourth image is upright. The hue of
    its shapes tells an image's class.
    """
    for part, count, seed in (("train", images, 0), ("val", max(images // 10, classes), 1)):
        rng = np.random.default_rng(seed)
        for index in range(count):
            sides = [int(side * rng.uniform(0.8, 1.2)) for side in size]
            path = folder / part / f"class_{index % classes:03}" / f"{part}_{index:06}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            sides = sides[::-1] if index % 4 == 3 else sides
            path.write_bytes(jpeg(photo(rng, *sides, hue=index % classes / classes)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--classes", type=int, default=10)
    arguments = parser.parse_args()
    make_tree(arguments.folder, arguments.images, arguments.classes)
