"""JPEG files to pixels, by simplejpeg: any warning of the decoder is damage.

Pillow and libtiff throw libjpeg's warnings away, so that half a JPEG with an end marker behind it
would pass as sound.
"""

import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import JpegImagePlugin

from furs_jax.data.pixels import check_size, orientation, upright

START = b"\xff\xd8"


class Header(NamedTuple):
    """Of the stored image; `orientation` is EXIF's."""

    height: int
    width: int
    grey: bool
    orientation: int

    @property
    def upright_shape(self) -> tuple[int, int]:
        """(height, width) of the image that is to be seen."""
        shape = self.height, self.width
        return shape if self.orientation <= 4 else shape[::-1]


def read_header(data: bytes) -> Header:
    """Raises ValueError where it is damaged, UnsupportedError where it is too large."""
    height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    check_size(height, width)
    return Header(height, width, colours == "Gray", _orientation(data))


def decode(
    data: bytes, factor: Callable[[Header], int] = lambda header: 1
) -> tuple[np.ndarray, Header]:
    """The pixels, upright, uint8 (height, width, 1 or 3).

    Args:
      factor: 1, 2, 4 or 8, by which the image may be smaller.

    Raises:
      ValueError: it is damaged.
      UnsupportedError: it is too large.
    """
    data = _known_version(data)
    header = read_header(data)
    smaller = factor(header)
    pixels = simplejpeg.decode_jpeg(
        data,
        "GRAY" if header.grey else "RGB",
        min_height=-(-header.height // smaller),
        min_width=1,
        min_factor=smaller,
    )
    return upright(pixels, header.orientation), header


def check(data: bytes) -> None:
    """Raises ValueError where the image, which is not to be seen, is damaged or too large."""
    check_size(*simplejpeg.decode_jpeg_header(data)[:2])
    simplejpeg.decode_jpeg(data)


def _known_version(data: bytes) -> bytes:
    """Without the version of JFIF where libjpeg warns of it: some cameras wrote 0.0."""
    odd = data[6:11] == b"JFIF\0" and data[11:12] not in (b"\1", b"\2")
    return data[:11] + b"\1" + data[12:] if odd else data


def _orientation(data: bytes) -> int:
    """EXIF's, wherever its segment stands before the pixels."""
    place = len(START)
    while data[place : place + 1] == b"\xff":
        marker = int.from_bytes(data[place + 1 : place + 2])
        if marker == 0xDA:  # the pixels
            break
        if marker == 0xE1:  # EXIF or XMP
            try:
                return orientation(JpegImagePlugin.JpegImageFile(io.BytesIO(data)))
            except Exception:
                return 1  # damaged EXIF: the pixels may be sound
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD7:  # fill, or without content
            place += 1 if marker == 0xFF else 2
            continue
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return 1
