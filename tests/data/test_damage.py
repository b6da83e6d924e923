"""Damaged images, and such as can't be read: named, or skipped and counted."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from benchmarks.photos import jpeg, make_tree, photo
from furs_jax.data import load_dataset
from furs_jax.data.batches import evaluation_batches, training_batch, training_batches
from furs_jax.errors import DataError
from tests.data.encoded import encoded
from tests.data.small_reading import READING, assert_same, numbered

PHOTO = photo(np.random.default_rng(0), 60, 80)
DAMAGED = {
    "cut.jpg": jpeg(PHOTO)[:2000],
    "cut.png": encoded(PHOTO, "PNG")[:2000],
    "text.jpeg": b"<html>not found</html>",
    "empty.JPG": b"",
    "header.jpg": b"\xff\xd8\xff\xe0",
    "noise.jpg": jpeg(PHOTO)[:300] + bytes(range(256)) * 8,
}


@pytest.fixture(params=DAMAGED)
def damaged(request, tmp_path):
    make_tree(tmp_path, 20, 2, (40, 50))
    for part in ("train", "val"):
        (tmp_path / part / "class_000" / request.param).write_bytes(DAMAGED[request.param])
    return tmp_path, request.param


@pytest.mark.filterwarnings("ignore:.* is no image or damaged")
def test_damaged_images_are_named_or_skipped_and_counted(damaged):
    folder, name = damaged
    data = load_dataset(f"folder:{folder}", 0.2, reading=READING)
    with pytest.raises(DataError, match=f"train/class_000/{name} is no image or damaged") as error:
        list(evaluation_batches(data.train_and_search, 4))
    assert len(str(error.value).splitlines()) == 1
    reading = dataclasses.replace(READING, on_corrupt="skip")
    data = load_dataset(f"folder:{folder}", 0.2, reading=reading)
    split = numbered(data.train_and_search)
    (place,) = [i for i, n in enumerate(split.numbers) if split.records.name(int(n)).endswith(name)]
    steps = range(3, 6)
    with pytest.warns(UserWarning, match=f"{name} is no image or damaged .*; skipped"):
        batches = list(training_batches(split, 1, steps, 7))
    assert_same([training_batch(split, 1, step, 7) for step in steps], batches)
    labels = np.concatenate([batch["label"] for batch in batches])
    assert sum(batch["damaged"].sum() for batch in batches) == 1
    expected = [label if label != place else (place + 1) % 21 for label in range(21)]
    assert sorted(labels) == sorted(expected)
    weights = np.concatenate([batch["weight"] for batch in evaluation_batches(split, 8)])
    assert np.flatnonzero(weights == 0).tolist() == [place, 21, 22, 23]


def test_images_that_can_not_be_read_or_used_say_why(tmp_path):
    make_tree(tmp_path, 20, 2, (40, 50))
    images = sorted((tmp_path / "val" / "class_000").iterdir())
    split = load_dataset(f"folder:{tmp_path}", 0.2, reading=READING).test
    Image.fromarray(np.full((9, 9), 300, np.int32)).save(images[0], "TIFF")
    with pytest.raises(DataError, match=r"can't be used \(its int32 values span 300.*; convert it"):
        list(evaluation_batches(split, 4))
    images[0].unlink()
    with pytest.raises(DataError, match=r"can't be read \(No such file.*; look why, remove it"):
        list(evaluation_batches(split, 4))
    skipping = dataclasses.replace(split, reading=dataclasses.replace(READING, on_corrupt="skip"))
    with pytest.warns(UserWarning, match="can't be read .*; skipped"):
        weights = [batch["weight"] for batch in evaluation_batches(skipping, 4)]
    assert np.concatenate(weights)[0] == 0


def test_a_set_of_nothing_but_damage_is_refused(tmp_path):
    make_tree(tmp_path, 8, 2, (40, 50))
    for path in (tmp_path / "train").rglob("*.JPEG"):
        path.write_bytes(b"gone")
    reading = dataclasses.replace(READING, on_corrupt="skip")
    data = load_dataset(f"folder:{tmp_path}", 0.25, reading=reading)
    with pytest.warns(UserWarning, match="skipped"), pytest.raises(DataError, match="in a row"):
        training_batch(data.train, 0, 0, 4)
