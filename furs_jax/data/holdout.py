"""A part of the images held out, in equal shares of every class."""

import math
from collections.abc import Sequence

import numpy as np

from furs_jax.data.notes import say
from furs_jax.errors import DataError


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
    count = len(places)
    # Held out are as many images as there are classes at least; of each class one stays.
    least, most = len(sizes), count - math.ceil(count / min(sizes, default=1))

    def works(share: float) -> bool:
        return 0 < least <= math.ceil(share * count) <= most

    if not works(fraction):
        shares = [i / 10_000 for i in range(1, 10_000) if works(i / 10_000)]
        remedy = "add images"
        if shares:
            remedy = f"give a data.search_fraction of {shares[0]:g} to {shares[-1]:g}"
        raise DataError(
            f"a share of {fraction:g} of {count:,} images can't hold every class of {name} and "
            f"leave some of each to train on; {remedy}"
        )
    kept, held = train_test_split(
        places, test_size=fraction, stratify=labels[places], random_state=seed
    )
    alone = np.flatnonzero(np.isin(labels, lone))
    return np.sort(np.concatenate([kept, alone])), np.sort(held)
