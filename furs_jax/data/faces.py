"""Font files to glyphs, by Pillow's FreeType: gray masks of each face, and which faces are kin.

Nothing of a font is used but its cmap and outlines: the layout engine is the basic one, variable
fonts stay as they are by default, colours are not drawn.
"""

import hashlib
import io
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.sparse.csgraph import connected_components

from furs_jax.data.fonts import FontFile

# What most faces have: printable ASCII, and the letters of Latin-1.
CHARACTERS = "".join(map(chr, [*range(0x21, 0x7F), *range(0xC0, 0x100)]))
CHARACTERS = CHARACTERS.translate({0xD7: None, 0xF7: None})  # multiplied, divided
CANVAS = 64  # pixels, side of a mask
_BASELINE, _CAPITALS = 46, 34  # pixels: rows above it, and the height of H, with room for accents
_MISSING = "\U0010ffff"  # no character, so a font shows what it shows for those that it lacks
_FEWEST = 0.9  # share of the characters that a face must have
_ALIKE = 0.985  # least cosine of two shapes that are taken for one
_KIN = 0.5  # share of their characters drawn alike that makes two faces kin
_MOST_BYTES, _MOST_FACES_OF_FILE = 1 << 26, 64


class Face(NamedTuple):
    family: str
    source: str  # of its file
    digest: bytes  # of all its masks
    keys: np.ndarray  # uint64 (len(CHARACTERS),): digest of each mask, 0 where there is none
    shapes: np.ndarray  # uint8 (len(CHARACTERS), 16, 16): the masks, smaller


Masks = dict[int, np.ndarray]  # place in CHARACTERS -> uint8 (CANVAS, CANVAS)


class UnusableError(ValueError):
    """A font file is damaged, too large, or of a kind that FreeType can't scale."""


def read_faces(file: FontFile) -> Iterator[tuple[Face, Masks]]:
    """The faces of a file that have nearly all characters, with their glyphs.

    Left out of a face: what it lacks, blanks, of two characters that it draws alike the second, and
    all of three, as a box that stands for them.

    Raises:
      UnusableError: see there.
      OSError: the file can't be read.
    """
    if file.path.stat().st_size > _MOST_BYTES:
        raise UnusableError(f"more than {_MOST_BYTES:,} bytes")
    data = file.path.read_bytes()
    try:
        for font in _fonts(data):
            masks = _masks(font)
            if len(masks) >= _FEWEST * len(CHARACTERS):
                yield _face(font.getname()[0] or "", file.source, masks), masks
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises errors of many kinds on damaged files
        raise UnusableError(str(error)) from error


def _face(family: str, source: str, masks: Masks) -> Face:
    keys = np.zeros(len(CHARACTERS), np.uint64)
    shapes = np.zeros((len(CHARACTERS), 16, 16), np.uint8)
    for place, mask in masks.items():
        keys[place] = _key(mask)
        shapes[place] = np.asarray(Image.fromarray(mask).reduce(CANVAS // 16))
    digest = hashlib.blake2b(keys.astype("<u8").tobytes(), digest_size=16).digest()
    return Face(family, source, digest, keys, shapes)


def _fonts(data: bytes) -> Iterator[ImageFont.FreeTypeFont]:
    """Each face of a file, so large that its H has `_CAPITALS` pixels."""
    collection = data[:4] == b"ttcf"
    for index in range(_MOST_FACES_OF_FILE if collection else 1):
        try:
            font = _font(data, index, CANVAS)
        except OSError:
            if index == 0:
                raise
            return  # behind the last
        height = -font.getbbox("H", anchor="ls")[1]
        if not CANVAS / 8 <= height <= 2 * CANVAS:
            continue  # no letter
        yield _font(data, index, round(CANVAS * _CAPITALS / height))


def _font(data: bytes, index: int, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(io.BytesIO(data), size, index, layout_engine=ImageFont.Layout.BASIC)


def _masks(font: ImageFont.FreeTypeFont) -> Masks:
    lacking = _key(_mask(font, _MISSING))
    drawn: dict[int, Masks] = {}
    for place, character in enumerate(CHARACTERS):
        mask = _mask(font, character)
        if mask.any():
            drawn.setdefault(_key(mask), {})[place] = mask
    own = (alike for key, alike in drawn.items() if key != lacking and len(alike) < 3)
    return dict(sorted(next(iter(alike.items())) for alike in own))


def _mask(font: ImageFont.FreeTypeFont, character: str) -> np.ndarray:
    """uint8 (CANVAS, CANVAS): the glyph on the baseline, in the middle; blank where too large."""
    image = Image.new("L", (CANVAS, CANVAS))
    left, top, right, bottom = font.getbbox(character, anchor="ls")
    if max(-left, right, -top, bottom) <= 4 * CANVAS:  # else don't ask for the memory
        at = (CANVAS // 2 - int(left + right) // 2, _BASELINE)
        ImageDraw.Draw(image).text(at, character, fill=255, font=font, anchor="ls")
    return np.asarray(image)


def _key(mask: np.ndarray) -> int:
    return int.from_bytes(hashlib.blake2b(mask.tobytes(), digest_size=8).digest(), "little")


def kin(faces: Sequence[Face]) -> np.ndarray:
    """Numbers groups of faces that look or are called alike, int (F,), in the order of faces.

    Two faces are kin that have a family's name or a source in common, or that draw half of their
    characters nearly alike: a font packaged twice, redrawn, or forked under another name.
    """
    shapes = np.array([face.shapes for face in faces]).reshape(len(faces), len(CHARACTERS), 16**2)
    alike, common = np.zeros((2, len(faces), len(faces)), np.int16)
    for place in range(len(CHARACTERS)):
        rows = shapes[:, place].astype(np.float32)
        # Whole numbers below 2^24, so exact in any order of the sums, on any number of threads.
        products = (rows @ rows.T).astype(np.float64)
        squares = products.diagonal()
        has = squares > 0
        common += has & has[:, None]
        alike += (products > 0) & (products**2 >= _ALIKE**2 * squares * squares[:, None])
    linked = alike > _KIN * common
    for names in ([face.family.casefold() for face in faces], [face.source for face in faces]):
        numbers = np.unique(names, return_inverse=True)[1]
        linked |= numbers == numbers[:, None]
    return connected_components(linked, directed=False)[1]
