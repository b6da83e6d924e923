"""Glyphs of many fonts as small images to train on, and those of other fonts to test on."""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import PIL
from PIL import Image, features

from furs_jax.data.faces import CANVAS, CHARACTERS, Face, UnusableError, kin, read_faces
from furs_jax.data.fonts import PACKAGES, FontFile
from furs_jax.errors import DataError

_SIDE = 16  # pixels of an image
_TEST_SHARE = 0.2  # of all images, at most
_MOST_FACES = 1 << 12

_Images = dict[bytes, dict[int, np.ndarray]]  # face's digest -> place in CHARACTERS -> image


class Part(NamedTuple):
    """The images to train on, or those to test on."""

    images: np.ndarray  # uint8 (N, 16, 16), ink is bright
    labels: np.ndarray  # uint8 (N,): places in CHARACTERS
    families: tuple[str, ...]
    faces: int


class GlyphSet(NamedTuple):
    train: Part
    test: Part
    record: dict[str, Any]  # what it was made from, for JSON
    summary: str  # some lines


def make(files: Sequence[FontFile], seed: int) -> GlyphSet:
    """Draws all glyphs, and deals them out.

    Args:
      files: the fonts, in any order.
      seed: of what is done to the glyphs, and of the choice of families.

    Returns:
      Images of families to train on and of others to test on. Each part lies group by group of
      kindred faces, so that the last images are of other families than those before.

    Raises:
      DataError: too few fonts for that, or more than are compared.
    """
    faces, images, left_out = _draw(files, seed)
    trained, tested = _split(faces, seed)
    test_keys = np.unique([face.keys for face in tested])
    again = [np.isin(face.keys, test_keys) & (face.keys > 0) for face in trained]
    left_out["training glyphs that are drawn as one of the test"] = int(np.sum(again))
    trained = [
        face._replace(keys=np.where(row, 0, face.keys))
        for face, row in zip(trained, again, strict=True)
    ]
    train, test = (_part(part, images) for part in (trained, tested))
    if not len(test.labels) or not np.isin(test.labels, train.labels).all():
        raise DataError(
            f"{len(faces)} faces, of {len(files)} font files, are too few for families to train on "
            f"and others to test on; install more: apt-get install {' '.join(PACKAGES[:5])} and "
            "the others in furs_jax/data/fonts.py"
        )
    record = {
        "seed": seed,
        "classes": CHARACTERS,
        "train_families": train.families,
        "test_families": test.families,
        "left_out": left_out,
        "freetype": features.version("freetype2"),
        "pillow": PIL.__version__,
        "numpy": np.__version__,
    }
    lines = [
        f"{name}: {len(part.labels):,} images, {part.faces} faces, {len(part.families)} families"
        for name, part in (("train", train), ("test", test))
    ]
    lines.append("left out: " + ", ".join(f"{count:,} {what}" for what, count in left_out.items()))
    return GlyphSet(train, test, record, "\n".join(lines))


def _draw(files: Sequence[FontFile], seed: int) -> tuple[list[Face], _Images, dict[str, int]]:
    """All faces, by their digests; and images, face by face where they differ."""
    faces: list[Face] = []
    images: _Images = {}
    damaged = 0
    for file in files:
        try:
            for face, masks in read_faces(file):
                faces.append(face)
                if face.digest not in images:
                    images[face.digest] = {
                        place: _image(mask, np.random.default_rng([seed, place, *face.digest]))
                        for place, mask in masks.items()
                    }
        except (UnusableError, OSError):
            damaged += 1
        if len(faces) > _MOST_FACES:
            raise DataError(
                f"there are more than {_MOST_FACES:,} faces, too many to compare; give fewer fonts"
            )
    faces.sort(key=lambda face: (face.digest, face.family, face.source))
    again = len(faces) - len(images)
    return (
        faces,
        images,
        {"font files that can't be drawn": damaged, "faces drawn as another": again},
    )


def _image(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A mask turned, sheared, scaled and moved at random, as uint8 (16, 16) with noise."""
    turn, shear, wide, high = rng.uniform(-1, 1, 4) * (0.07, 0.15, 0.1, 0.1)
    cosine, sine = (1 - turn**2) / (1 + turn**2), 2 * turn / (1 + turn**2)
    rows = np.array([[cosine, sine + shear], [-sine, cosine]]) * (1 + wide, 1 + high)
    middle = np.full(2, CANVAS / 2)
    moved = middle - rows @ middle + rng.uniform(-1, 1, 2) * (CANVAS / _SIDE)
    affine = (*rows[0], moved[0], *rows[1], moved[1])
    image = Image.fromarray(mask).transform(
        mask.shape, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR
    )
    ink = np.asarray(image.reduce(CANVAS // _SIDE), np.int32)
    paper, black = rng.integers(0, 48), rng.integers(176, 256)
    noise = rng.integers(-12, 13, (2, _SIDE, _SIDE)).sum(0)
    return np.clip(paper + ink * (black - paper) // 255 + noise, 0, 255).astype(np.uint8)


def _split(faces: Sequence[Face], seed: int) -> tuple[list[Face], list[Face]]:
    """Groups of kindred faces to train and to test on, in an order that follows from the seed."""
    groups: dict[int, dict[bytes, Face]] = {}
    for face, group in zip(faces, kin(faces), strict=True):
        groups.setdefault(group, {}).setdefault(face.digest, face)  # of the same faces one
    key = f"glyphs {seed}".encode()
    train, test, tested = [], [], 0
    most = _TEST_SHARE * sum(np.count_nonzero(f.keys) for g in groups.values() for f in g.values())
    for group in sorted(groups.values(), key=lambda g: hashlib.blake2b(min(g), key=key).digest()):
        size = sum(np.count_nonzero(face.keys) for face in group.values())
        fits = tested + size <= most
        tested += fits * size
        (test if fits else train).extend(group.values())
    return train, test


def _part(faces: Sequence[Face], images: _Images) -> Part:
    labels = [np.flatnonzero(face.keys) for face in faces]
    drawn = [images[f.digest][p] for f, places in zip(faces, labels, strict=True) for p in places]
    return Part(
        np.array(drawn, np.uint8).reshape(-1, _SIDE, _SIDE),
        np.array([place for places in labels for place in places], np.uint8),
        tuple(sorted({face.family for face in faces})),
        len(faces),
    )
