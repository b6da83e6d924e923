"""Image files other than JPEG to pixels, by Pillow.

Only the formats below are tried, by the file's first bytes, whatever its name says: Pillow alone
would hand an EPS file to Ghostscript. What the header claims is bounded before it is allocated.
"""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from furs_jax.data.pixels import UnsupportedError, check_size, eight_bits, orientation, upright

_READERS = (
    (b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    (b"RIFF", WebPImagePlugin.WebPImageFile),
    (b"BM", BmpImagePlugin.BmpImageFile),
    (b"GIF87a", GifImagePlugin.GifImageFile),
    (b"GIF89a", GifImagePlugin.GifImageFile),
    (b"II*\0", TiffImagePlugin.TiffImageFile),
    (b"MM\0*", TiffImagePlugin.TiffImageFile),
    (b"II+\0", TiffImagePlugin.TiffImageFile),
    (b"MM\0+", TiffImagePlugin.TiffImageFile),
    *((b"P%d" % kind, PpmImagePlugin.PpmImageFile) for kind in range(1, 7)),
)
_GREY_OF_MANY_BITS = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
# Pillow's modes and those that keep all their channels in bytes.
_MODES = {
    "1": "L",
    "L": "L",
    "LA": "LA",
    "La": "LA",
    "P": "RGB",
    "PA": "RGBA",
    "RGB": "RGB",
    "RGBX": "RGB",
    "RGBA": "RGBA",
    "RGBa": "RGBA",
    "CMYK": "RGB",
    "YCbCr": "RGB",
    "LAB": "RGB",
}
# Of each pass of PNG's interlacing: first column and row, and the steps between them.
_ADAM7 = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
# TIFF tags.
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT, _JPEG_TABLES = 258, 262, 339, 347
_STRIPS, _TILE_SHAPE, _TILES = (273, 279), (322, 323), (324, 325)


def decode(data: bytes, black: bool = False) -> np.ndarray:
    """The pixels of a PNG, WebP, BMP, GIF, TIFF or PPM file, uint8 (height, width, channels).

    Channels: grey, grey and alpha, RGB, or RGBA. It is turned as EXIF says. Of several frames or
    pages the first is taken.

    Args:
      black: whether a 16-bit image may end up black.

    Raises:
      ValueError: it is none of these, or damaged.
      UnsupportedError: it is too large, or of a depth or kind that is not read.
    """
    reader = next((reader for start, reader in _READERS if data.startswith(start)), None)
    if reader is None:
        raise ValueError("no JPEG, PNG, WebP, BMP, GIF, TIFF or PPM file")
    try:
        with reader(io.BytesIO(data)) as image:
            check_size(image.height, image.width)
            if image.format == "TIFF":
                _check_tiff(image, data)
            image.load()
            if image.format == "PNG":
                _check_png(image, data)
            return upright(_pixels(image, black), orientation(image))
    except UnsupportedError:
        raise
    except Exception as error:  # Pillow raises errors of many kinds on damaged files
        raise ValueError(str(error).partition(" <_io")[0]) from error


def _pixels(image: Image.Image, black: bool) -> np.ndarray:
    if image.mode in _GREY_OF_MANY_BITS:
        values, bits = np.asarray(image), 16
        if image.format == "TIFF":
            bits = image.tag_v2.get(_BITS, (bits,))[0]
        elif image.mode == "I":  # of PPM, and of PNG by older Pillow
            values = values.astype(np.uint16)
        # Native byte order compares and shifts as the others do.
        return eight_bits(values.astype(values.dtype.newbyteorder("=")), bits, black)[..., None]
    if image.mode not in _MODES:
        raise UnsupportedError(f"images of Pillow's mode {image.mode} are not read")
    mode = _MODES[image.mode]
    if image.mode == "P" and "transparency" in image.info:
        mode = "RGBA"
    pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _check_png(image: Image.Image, data: bytes) -> None:
    """Refuses image data that ends too early: Pillow leaves the missing rows black.

    They are at the bottom, unless rows are interlaced, so that a last row that isn't black tells
    that all are there, for nothing.
    """
    bottom = (0, image.height - 1, image.width, image.height)
    interlaced = data[28] != 0
    if not interlaced and image.crop(bottom).getbbox(alpha_only=False):
        return
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    expected = 0
    for left, top, right, down in passes:
        columns, rows = -(-(width - left) // right), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            expected += rows * (1 + (columns * bits + 7) // 8)
    inflate, found = zlib.decompressobj(), 0
    for piece in _png_data(data):
        while piece and found < expected:
            found += len(inflate.decompress(piece, 1 << 20))
            piece = inflate.unconsumed_tail
    if found < expected:
        raise ValueError("its image data ends too early")


def _png_data(data: bytes) -> Iterator[bytes]:
    """The IDAT chunks."""
    place = 8
    while place + 8 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        if data[place + 4 : place + 8] == b"IDAT":
            yield data[place + 8 : place + 8 + length]
        place += 12 + length


def _check_tiff(image: TiffImagePlugin.TiffImageFile, data: bytes) -> None:
    """Refuses what Pillow and libtiff pass on wrongly, or allocate for a claim."""
    tags = image.tag_v2
    if all(tag in tags for tag in _TILE_SHAPE):  # libtiff allocates a tile, however small the image
        check_size(tags[_TILE_SHAPE[1]], tags[_TILE_SHAPE[0]])
    signed = 2 in np.atleast_1d(tags.get(_SAMPLE_FORMAT, 1))
    if signed and image.mode not in _GREY_OF_MANY_BITS:
        raise UnsupportedError("its values have a sign; save it without")
    if image.mode in _GREY_OF_MANY_BITS and tags.get(_PHOTOMETRIC) == 0:
        raise UnsupportedError("its many bits count from white to black; save it the usual way")
    compression = image.info.get("compression")
    if compression == "tiff_jpeg":
        raise UnsupportedError("TIFF's old way of holding a JPEG is not read; convert it")
    if compression == "jpeg":  # libtiff throws libjpeg's warnings away
        from furs_jax.data import jpeg

        offsets, lengths = _TILES if _TILES[0] in tags else _STRIPS
        tables = bytes(tags.get(_JPEG_TABLES, b"\xff\xd8\xff\xd9"))[:-2]
        for start, length in zip(tags[offsets], tags[lengths], strict=True):
            jpeg.check(tables + data[start + 2 : start + length])
