"""A part of the images held out, in equal shares of every class."""

import math
from collections.abc import Sequence

import numpy as np

from furs_jax.data.dataset import AnySplit
from furs_jax.data.notes import say
from furs_jax.errors import DataError

USUAL_SHARE = 0.2


def fitting_share(labels: np.ndarray) -> float:
    """The share nearest to a fifth that `stratified` can hold out, where one can be.

    Args:
      labels: int32, shape (N,).
    """
    sizes = np.bincount(labels)
    shares = _workable(sizes[sizes > 1])
    return min(shares, key=lambda share: abs(share - USUAL_SHARE), default=USUAL_SHARE)


def _works(share: float, sizes: np.ndarray) -> bool:
    """Whether the share can be held out of classes of so many images.

    Held out are as many images as there are classes at least; of each class one stays.
    """
    count, least = int(sizes.sum()), len(sizes)
    most = count - math.ceil(count / min(sizes, default=1))
    return 0 < least <= math.ceil(share * count) <= most


def _workable(sizes: np.ndarray) -> list[float]:
    return [share for share in (i / 10_000 for i in range(1, 10_000)) if _works(share, sizes)]


def hold_out_test(
    name: str, split: AnySplit, classes: Sequence[str] = ()
) -> tuple[AnySplit, AnySplit]:
    """Of a set without test images: those to train on and about a fifth, to test on; it says so.

    Which they are follows from the images alone, so that no run's seed trains on them.

    Raises:
      DataError: there are too few.
    """
    labels = split.labels
    kept, held = stratified(labels, fitting_share(labels), 0, name, classes)
    say(
        f"{name} has no labelled test split; {len(held):,} of its {len(labels):,} training images, "
        "in equal shares of its classes, are held out and tested on"
    )
    return split.take(kept), split.take(held)


def stratified(
    labels: np.ndarray, fraction: float, seed: int, name: str, classes: Sequence[str] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Splits images at random. The only image of a class stays.

    Args:
      labels: int32, shape (N,).
      fraction: of the images that are held out.
      name: of the data set.
      classes: how the user would look for each class.

    Returns:
      Places of the images that stay and of those held out, sorted.

    Raises:
      DataError: the fraction is too small or too large for the classes.
    """
    from sklearn.model_selection import train_test_split

    sizes = np.bincount(labels)
    lone = np.flatnonzero(sizes == 1)
    if len(lone):
        shown = classes[lone[0]] if classes else f"class {lone[0]}"
        say(
            f"{name}: {shown}{f' and {len(lone) - 1} other classes' if len(lone) > 1 else ''} "
            f"{'have' if len(lone) > 1 else 'has'} one image to train on, so none is held out"
        )
    places, sizes = np.flatnonzero(sizes[labels] > 1), sizes[sizes > 1]
    if not len(places):
        raise DataError(
            f"no class of {name} has two images to train on, so none can be held out; add images"
        )
    if not _works(fraction, sizes):
        remedy = "add images"
        if shares := _workable(sizes):
            remedy = f"give a data.search_fraction of {shares[0]:g} to {shares[-1]:g}"
        raise DataError(
            f"a share of {fraction:g} of {len(places):,} images can't hold every class of {name} "
            f"and leave some of each to train on; {remedy}"
        )
    kept, held = train_test_split(
        places, test_size=fraction, stratify=labels[places], random_state=seed
    )
    alone = np.flatnonzero(np.isin(labels, lone))
    return np.sort(np.concatenate([kept, alone])), np.sort(held)
