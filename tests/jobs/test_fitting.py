"""Options that are "auto" become numbers that work, from a handful of images to many."""

import numpy as np
import pytest

from configs import photos
from furs_jax.data.dataset import Dataset, Split
from furs_jax.data.holdout import fitting_share, stratified
from furs_jax.errors import DataError
from furs_jax.jobs.fitting import fill, fit
from furs_jax.options.parse import flat, parse
from furs_jax.options.schema import AUTO, FITTED
from furs_jax.training.recipe import check_recipe


def split(count: int, classes: int) -> Split:
    labels = np.arange(count, dtype=np.int32) % classes
    return Split(np.zeros((count, 2, 2, 3), np.uint8), labels)


def dataset(train: int, search: int, classes: int = 2) -> Dataset:
    parts = split(train, classes), split(search, classes), split(2, classes)
    return Dataset("zeros", *parts, classes, (0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize(
    ("images", "size", "epochs"),
    [
        (3, 2, 400),
        (7, 4, 400),
        (26, 8, 134),
        (100, 16, 67),
        (480, 64, 58),
        (5000, 64, 6),
        (40_000, 64, 5),
    ],
)
def test_batches_and_epochs_follow_from_the_number_of_images(images, size, epochs):
    data = dataset(images, 2)
    found = fit(parse(photos.get_config()), data)
    assert (found.train.batch_size, found.train.epochs) == (size, epochs)
    assert found.search.warm_epochs == round(epochs / 4)
    check_recipe(found.train, "train", data.train)
    check_recipe(found.final.train, "final.train", data.train_and_search)
    assert AUTO not in [value for option, value in flat_of(found) if option in FITTED]


def flat_of(options):
    from furs_jax.options.parse import as_record

    return flat(as_record(options))


def test_what_is_a_number_stays_and_words_of_other_options_too():
    config = photos.get_config()
    config.train.batch_size, config.final.train.epochs, config.furs.draws = 3, 7, "auto"
    found = fit(parse(config), dataset(100, 20))
    assert (found.train.batch_size, found.final.train.epochs) == (3, 7)
    assert found.train.epochs == 13  # 400 steps of 33
    assert (found.furs.draws, found.step_programs) == ("auto", "auto")


def test_what_a_run_has_chosen_is_taken_for_auto_alone():
    config = photos.get_config()
    config.train.epochs = 9
    found = fill(parse(config), {"train.batch_size": 24, "train.epochs": 5, "network": "x"})
    assert (found.train.batch_size, found.train.epochs, found.network) == (24, 9, "resnet18")
    assert found.final.train.epochs == "auto"


@pytest.mark.parametrize(
    "sizes", [[30, 30], [2, 2], [2, 2, 3], [3] * 10, [4] * 50, [200, 2], [1, 5, 5], [2, 1000]]
)
def test_the_share_that_fits_can_be_held_out(sizes):
    labels = np.repeat(np.arange(len(sizes)), sizes).astype(np.int32)
    share = fitting_share(labels)
    kept, held = stratified(labels, share, 0, "x")
    assert len(kept) + len(held) == len(labels)
    assert np.bincount(labels[kept], minlength=len(sizes)).min() >= 1
    if min(sizes) >= 5:
        assert share == 0.2


def test_too_few_images_say_so():
    labels = np.arange(4, dtype=np.int32)
    with pytest.raises(DataError, match="add images$"):
        stratified(labels, fitting_share(labels), 0, "x")
