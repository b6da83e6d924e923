"""Images on disk: folders, TFDS, decoding, damaged files, the pipeline's batches."""

import contextlib
import dataclasses
import io
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
from furs_jax.data import (
    Dataset,
    Reading,
    Split,
    evaluation_batches,
    load_dataset,
    training_batch,
    training_batches,
)
from furs_jax.data.decode import Box, central_box, decode_crop, random_box
from furs_jax.errors import ConfigError, DataError
from furs_jax.machine.cores import usable_cores
from furs_jax.networks import Network
from furs_jax.networks.families.resnet import ResNet
from furs_jax.training.recipe import check_recipe
from furs_jax.training.train import Task, make_evaluator
from tests import ROOT
from tests.conftest import random_variables
from tests.training.test_step import RECIPE

READING = Reading(image_size=16, workers=3)


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


def numbered(split):
    """The split with each image's place for its label."""
    return dataclasses.replace(split, labels=np.arange(len(split.labels), dtype=np.int32))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def whole(data: bytes, size: int = 8) -> np.ndarray:
    out = np.zeros((size, size, 3), np.uint8)
    decode_crop(data, lambda height, width: Box(0, 0, height, width), out)
    return out


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


def assert_same(batches, expected):
    for found, batch in zip(batches, expected, strict=True):
        assert found.keys() == batch.keys()
        for key in batch:
            np.testing.assert_array_equal(found[key], batch[key])


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
        scores.append(make_evaluator(task, net.channels)(variables, split))
    # 36 images in batches of 16: the last is filled up.
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)


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


def test_cores_are_counted_where_the_system_has_no_affinity(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 4, 7}, raising=False)
    assert usable_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    assert usable_cores() == os.cpu_count()
    assert Reading().threads == os.cpu_count()


def test_a_set_of_nothing_but_damage_is_refused(tmp_path):
    make_tree(tmp_path, 8, 2, (40, 50))
    for path in (tmp_path / "train").rglob("*.JPEG"):
        path.write_bytes(b"gone")
    reading = dataclasses.replace(READING, on_corrupt="skip")
    data = load_dataset(f"folder:{tmp_path}", 0.25, reading=reading)
    with pytest.warns(UserWarning, match="skipped"), pytest.raises(DataError, match="in a row"):
        training_batch(data.train, 0, 0, 4)


def test_colour_modes_become_rgb():
    colour = (200, 60, 20)
    plain = Image.new("RGB", (24, 24), colour)
    kinds = {
        "JPEG": encoded(plain, "JPEG", quality=95),
        "CMYK": encoded(plain.convert("CMYK"), "JPEG", quality=95),
        "palette": encoded(plain.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
        "RGBA": encoded(plain.convert("RGBA"), "PNG"),
        "BMP": encoded(plain, "BMP"),
        "WebP": encoded(plain, "WEBP", lossless=True),
    }
    for kind, data in kinds.items():
        assert np.abs(whole(data) - np.array(colour)).max() <= 4, kind
    for kind, image, level in (
        ("JPEG", Image.new("L", (24, 24), 77), 77),
        ("PNG", Image.fromarray(np.full((24, 24), 77 * 256, np.uint16)), 77),
        ("PNG", Image.new("1", (24, 24), 1), 255),
    ):
        assert np.abs(whole(encoded(image, kind)) - level).max() <= 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_turned_images_are_turned_upright(kind):
    pixels = np.zeros((40, 24, 3), np.uint8)
    pixels[:20] = 255  # upright: white above
    turned = Image.fromarray(np.rot90(pixels))  # as a camera held on its side stores it
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown after a quarter turn clockwise
    found = whole(encoded(turned, kind, exif=exif))
    assert found[:3].min() > 240
    assert found[-3:].max() < 15
    exif[0x0112] = 1
    found = whole(encoded(Image.fromarray(pixels), kind, exif=exif))
    assert found[:3].min() > 240


def test_scaled_decoding_shows_the_same():
    image = photo(np.random.default_rng(1), 390, 500)
    reference = image.crop((16, 8, 416, 360)).resize((40, 40), Image.Resampling.BOX)
    out = np.zeros((40, 40, 3), np.uint8)
    decode_crop(jpeg(image), lambda height, width: Box(8, 16, 352, 400), out)
    error = np.abs(out.astype(int) - np.asarray(reference)).mean()
    shifted = np.abs(out[:, 1:].astype(int) - np.asarray(reference)[:, :-1]).mean()
    assert error < 0.5 * shifted
    assert error < 3


def test_random_boxes_have_the_stated_areas_and_ratios():
    rng = np.random.default_rng(0)
    boxes = np.array([random_box(rng, 300, 400, 0.2) for _ in range(2000)])
    top, left, height, width = boxes.T
    assert min(top.min(), left.min()) >= 0
    assert np.all(top + height <= 300 + 1e-9)
    assert np.all(left + width <= 400 + 1e-9)
    area, ratio = height * width / 120_000, width / height
    assert 0.2 <= area.min() < 0.21
    assert 0.95 < area.max() <= 1
    assert 0.75 <= ratio.min() < 0.76
    assert 1.32 < ratio.max() <= 4 / 3 + 1e-9
    always = area[area < 0.75**2]  # of these every ratio fits
    assert np.median(always) == pytest.approx((0.2 + 0.75**2) / 2, abs=0.02)
    thin = random_box(rng, 10, 1000, 1.0)  # no ratio fits: the middle
    assert thin == pytest.approx((0, 500 - 20 / 3, 10, 40 / 3))
    assert central_box(300, 400, 0.5) == (75, 125, 150, 150)


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
        ("no val", "should have the folders train and val"),
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
    bench_input.bench(config, tmp_path / "w")
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
