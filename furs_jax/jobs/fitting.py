"""Options that are "auto": numbers that fit how many images there are."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from furs_jax.data.dataset import AnySplit, Dataset
from furs_jax.data.holdout import fitting_share
from furs_jax.options.schema import AUTO, FITTED, Options, Recipe

# Of a training: steps, and epochs where those take fewer.
_STEPS, _FEWEST_EPOCHS = 400, 5
_SMALL, _LARGE = 8, 64  # batches
_WARM_SHARE = 1 / 4  # of a round's epochs, where it goes on from the last one's weights


def fit(options: Options, dataset: Dataset) -> Options:
    """The options with a number wherever one is "auto".

    A training takes 400 steps, and 5 epochs at least, by batches of a quarter of the images, but 8
    to 64, or all where there are fewer; batches are powers of two. A round that goes on from
    weights takes a quarter of its epochs. The share of the search split is a fifth, or the nearest
    to it that holds an image of each class and leaves one.
    """
    round_size = _batch_size(options.train, len(dataset.train.labels))
    final_images = len(final_split(options, dataset).labels)
    final_size = _batch_size(options.final.train, final_images)
    epochs = _epochs(options.train, len(dataset.train.labels), round_size)
    values = {
        "data.search_fraction": fitting_share(dataset.train_and_search.labels),
        "train.batch_size": round_size,
        "train.epochs": epochs,
        "search.warm_epochs": max(round(_WARM_SHARE * epochs), 1),
        "final.train.batch_size": final_size,
        "final.train.epochs": _epochs(options.final.train, final_images, final_size),
    }
    return fill(options, values)


def final_split(options: Options, dataset: Dataset) -> AnySplit:
    """What final trainings are of."""
    return dataset.train_and_search if options.final.use_search_split else dataset.train


def fill(options: Options, values: Mapping[str, Any]) -> Options:
    """The options with the value of that name wherever one is "auto"."""
    for option in FITTED:
        options = _filled(options, option.split("."), values.get(option, AUTO))
    return options


def _filled(options: Any, path: Sequence[str], value: Any) -> Any:
    name, *rest = path
    given = getattr(options, name)
    if not rest and given != AUTO:
        return options
    return dataclasses.replace(options, **{name: _filled(given, rest, value) if rest else value})


def _batch_size(recipe: Recipe, images: int) -> int:
    if recipe.batch_size != AUTO:
        return recipe.batch_size
    return _power_of_two(min(max(images // 4, _SMALL), _LARGE, images))


def _epochs(recipe: Recipe, images: int, batch_size: int) -> int:
    if recipe.epochs != AUTO:
        return recipe.epochs
    return max(-(-_STEPS // max(images // batch_size, 1)), _FEWEST_EPOCHS)


def _power_of_two(number: int) -> int:
    """The largest that is not more than the number."""
    return 1 << (number.bit_length() - 1)
