"""Images on disk: folders, TFDS, the pipeline's batches."""

import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from benchmarks.photos import jpeg, make_tree, photo
from configs import r18
from furs_jax.bench import input as bench_input
from furs_jax.data import Reading, load_dataset
from furs_jax.data.batches import evaluation_batches, training_batch, training_batches
from furs_jax.data.dataset import Dataset, Split
from furs_jax.errors import ConfigError, DataError
from furs_jax.networks.families.resnet import ResNet
from furs_jax.networks.network import Network
from furs_jax.options.parse import parse
from furs_jax.training.evaluate import Evaluator
from furs_jax.training.recipe import check_recipe
from furs_jax.training.trainer import Task
from tests import ROOT
from tests.conftest import random_variables
from tests.data.small_reading import READING, assert_same, numbered
from tests.training.test_step import RECIPE


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """48 training and 12 test images of 4 classes."""
    folder = tmp_path_factory.mktemp("photos")
    make_tree(folder, 48, 4, (40, 50))
    for index in range(8):  # other kinds of files and names, and a nested folder
        name = f"{index}.{('PNG', 'jpg')[index % 2]}"
        path = folder / "val" / f"class_{index % 4:03}" / "more" / name
        path.parent.mkdir(exist_ok=True)
        photo(np.random.default_rng(index), 30, 30).save(path)
        (path.parent / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def data(tree):
    return load_dataset(f"folder:{tree}", 0.25, reading=READING)


def test_a_folder_is_split_in_equal_shares_of_its_classes(data, tree):
    assert (data.num_classes, data.image_shape) == (4, (16, 16, 3))
    for split, each in ((data.train, 9), (data.search, 3), (data.test, 3)):
        assert np.bincount(split.labels).tolist() == [each] * 4
    files = [
        {split.records.name(int(n)) for n in split.numbers}
        for split in (data.train, data.search, data.test)
    ]
    assert len(set.union(*files)) == sum(map(len, files)) == 60
    assert len(data.train_and_search.labels) == 48
    for split in (data.train, data.train_and_search):
        for number, label in zip(split.numbers, split.labels, strict=True):
            assert f"/class_{label:03}/" in split.records.name(int(number))
    again, other = (
        load_dataset(f"folder:{tree}", 0.25, seed=seed, reading=READING).search.numbers
        for seed in (0, 1)
    )
    np.testing.assert_array_equal(again, data.search.numbers)
    assert not np.array_equal(other, again)


def test_an_epoch_meets_each_image_once(data):
    split = numbered(data.train)
    with contextlib.closing(training_batches(split, 5, range(6), 12)) as batches:
        labels = [batch["label"] for batch in batches]
    epochs = [np.concatenate(labels[:3]), np.concatenate(labels[3:])]
    assert [sorted(epoch) for epoch in epochs] == [list(range(36))] * 2
    assert not np.array_equal(*epochs)


@pytest.mark.parametrize("processes", [0, 2])
def test_batches_depend_on_seed_and_step_alone(data, processes):
    expected = [training_batch(data.train, 3, step, 12) for step in range(4, 8)]
    reading = Reading(16, workers=2, processes=processes, prefetch=1)
    split = dataclasses.replace(data.train, reading=reading)
    with contextlib.closing(training_batches(split, 3, range(4, 8), 12)) as batches:
        assert_same(batches, expected)
    # An image is cropped anew in another epoch, and with another seed.
    first = {
        tuple(split.examples(np.array([7]), seed)["image"].ravel())
        for seed in ((3, 0), (3, 1), (4, 0))
    }
    assert len(first) == 3


READING_PROCESS = """
import dataclasses, os, signal, sys
from furs_jax.data import Reading, load_dataset, training_batches
if __name__ == "__main__":
    reading = Reading(16, workers=1, processes=2)
    split = load_dataset(f"folder:{sys.argv[1]}", 0.25, reading=reading).train
    batches = training_batches(split, 0, range(10**9), 12)
    for _ in range(3):  # of both processes
        next(batches)
    for number in (signal.SIGINT, signal.SIGTERM):  # as from a terminal or a scheduler
        signal.signal(number, lambda *_: None)
        os.killpg(0, number)
    for _ in range(30):  # more than are read ahead
        next(batches)
    print("reading", flush=True)
    sys.stdin.read()
"""


def test_reading_processes_end_with_a_killed_parent_and_not_by_a_signal_to_all(tree):
    """They hold its standard output open, which ends when the last of them does."""
    with subprocess.Popen(
        [sys.executable, "-c", READING_PROCESS, tree],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout.readline() == "reading\n"
        finally:
            process.kill()
        process.communicate(timeout=60)


def test_hosts_read_disjoint_parts_of_every_batch(data):
    for read in (
        lambda *host: training_batches(numbered(data.train), 0, range(3), 12, *host),
        lambda *host: evaluation_batches(numbered(data.train), 8, *host),
    ):
        parts = [list(read(host, 4)) for host in range(4)]
        joined = [
            {key: np.concatenate([part[key] for part in step]) for key in step[0]}
            for step in zip(*parts, strict=True)
        ]
        assert_same(joined, list(read()))
    memory = Split(np.arange(21).reshape(-1, 1, 1, 1), np.arange(21))
    parts = [list(evaluation_batches(memory, 8, host, 2)) for host in range(2)]
    seen = [b["index"][b["weight"] > 0] for part in parts for b in part]
    assert sorted(np.concatenate(seen)) == list(range(21))


def test_evaluation_counts_every_image_once_on_any_number_of_devices(data):
    images = np.concatenate([batch["image"] for batch in evaluation_batches(data.train, 12)])
    memory = Split(images, data.train.labels)
    template = ResNet((4, 5, 6, 8), 4, (1, 1), num_classes=4, imagenet=False, padding="max")
    net = Network("tiny", template, data.image_shape)
    variables = random_variables(net, net.channels)
    scores = []
    for split, devices in ((memory, 1), (data.train, 8)):
        dataset = Dataset("photos", split, split, split, 4, data.mean, data.std)
        task = Task(net, dataset, tuple(jax.devices()[:devices]), "float32", 16)
        scores.append(Evaluator(task, net.channels)(variables, split))
    # 36 images in batches of 16: the last is filled up.
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)


def _change(folder: pathlib.Path, how: str) -> None:
    if how == "no val":
        (folder / "val").rename(folder / "holdout")
    elif how == "nothing":
        (folder / "train").rename(folder / "t")
        (folder / "train").mkdir()
    elif how == "empty class":
        for path in (folder / "val" / "class_001").iterdir():
            path.rename(path.with_suffix(".txt"))
    elif how == "other classes":
        (folder / "val" / "class_001").rename(folder / "val" / "class_009")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no val", "no class of .* has two images to train on, so none can be held out"),
        ("nothing", "train has no folders: it should have one for each class"),
        ("empty class", "class_001 has no image .*.jpeg"),
        ("other classes", "Only one of them has: class_001, class_009"),
    ],
)
def test_folders_of_another_layout_are_explained(tmp_path, how, message):
    make_tree(tmp_path, 4, 2, (20, 20))
    _change(tmp_path, how)
    with pytest.raises(DataError, match=message):
        load_dataset(f"folder:{tmp_path}", 0.5)


def test_options_that_can_not_work_are_refused(tree, data):
    for options in (
        {"on_corrupt": "hide"},
        {"prefetch": 0},
        {"min_scale": 0.0},
        {"eval_crop": 2.0},
    ):
        with pytest.raises(ConfigError, match=f"data.{next(iter(options))}="):
            load_dataset(f"folder:{tree}", reading=Reading(**options))
    with pytest.raises(ConfigError, match="give data.search_split=stratified"):
        load_dataset(f"folder:{tree}", search_split="last")
    with pytest.raises(ConfigError, match="data.pool=2 is for images in memory"):
        load_dataset(f"folder:{tree}", pool=2)
    with pytest.raises(ConfigError, match="train.crop_margin=1 must be 0 for images on disk"):
        check_recipe(RECIPE, "train", data.train)


def test_the_input_s_speed_is_reported(tree, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_input, "SECONDS", 0.01)
    monkeypatch.setattr(bench_input, "REPEATS", 1)
    config = r18.get_config()
    config.update_from_flattened_dict(
        {
            "data.name": f"folder:{tree}",
            "data.search_fraction": 0.25,
            "data.image_size": 16,
            "train.batch_size": 12,
            "eval_batch_size": 12,
        }
    )
    bench_input.bench(parse(config), tmp_path / "w")
    found = json.loads((tmp_path / "w" / "bench_input.json").read_text())
    assert found["training"]["images_per_second"] > 0
    assert "images per second" in capsys.readouterr().out


def test_imagenet_through_tfds(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def encode(feature, pixels):  # TFDS encodes its mocks with TensorFlow, else
        return jpeg(Image.fromarray(pixels))

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tfds.features.Image, "encode_example", encode)
    with tfds.testing.mock_data(num_examples=40):
        data, again = (
            load_dataset("tfds:imagenet2012", 0.25, "last", reading=READING) for _ in range(2)
        )
        assert data.num_classes == 1000
        assert [len(s.labels) for s in (data.train, data.search, data.test)] == [30, 10, 40]
        np.testing.assert_array_equal(again.test.labels, data.test.labels)
        assert len(list(tmp_path.rglob("*.npy"))) == 2  # labels of train and validation
        batch = training_batch(data.train, 0, 1, 10)
        with contextlib.closing(training_batches(data.train, 0, range(1, 3), 10)) as batches:
            assert_same([next(batches)], [batch])
        assert batch["image"].shape == (10, 16, 16, 3)
        assert "imagenet2012" in data.test.records.name(3)
        assert "validation" in data.test.records.name(3)


def test_a_search_runs_on_a_folder(tree, tmp_path):
    """As a process of its own, with a damaged image among the others."""
    (broken := tree / "train" / "class_002" / "broken.jpg").write_bytes(b"no image")
    options = {
        "data.name": f"folder:{tree}",
        "data.search_split": "stratified",
        "data.image_size": 64,
        "data.on_corrupt": "skip",
        "network": "resnet8_cifar",
        "width_multiplier": 0.25,
    }
    done = subprocess.run(
        [
            *(sys.executable, "-m", "furs_jax.main", "--config=configs/r18.py:smoke"),
            f"--workdir={tmp_path}/w",
            *(f"--config.{option}={value}" for option, value in options.items()),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    broken.unlink()
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("class_002/broken.jpg is no image or damaged") == 1
    lines = (tmp_path / "w" / "metrics.jsonl").read_text().splitlines()
    epochs = [json.loads(line) for line in lines]
    # An epoch of 49 images in batches of 16 may leave it out.
    assert max(epoch.get("skipped", 0) for epoch in epochs if "final" in epoch["phase"]) == 1
    assert (tmp_path / "w" / "result.json").exists()
