"""Data: sources, the three splits, batches, augmentation, damaged files."""

import gzip
import io
import resource
import struct
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from furs_jax.data import load_dataset, load_images, notes
from furs_jax.data.augment import crop_and_flip, normalise
from furs_jax.data.batches import evaluation_batches, training_batch
from furs_jax.data.dataset import Split
from furs_jax.errors import ConfigError, DataError


def _write_idx(folder, part, images, labels, suffix=""):
    content = {
        f"{part}-images-idx3-ubyte": struct.pack(">4I", 0x803, *images.shape) + images.tobytes(),
        f"{part}-labels-idx1-ubyte": struct.pack(">2I", 0x801, len(labels)) + labels.tobytes(),
    }
    for name, data in content.items():
        (folder / (name + suffix)).write_bytes(gzip.compress(data) if suffix else data)


@pytest.fixture
def idx(tmp_path):
    rng = np.random.default_rng(0)
    for part, count, suffix in (("train", 200, ".gz"), ("t10k", 50, "")):
        images = rng.integers(0, 256, (count, 6, 5), np.uint8)
        _write_idx(tmp_path, part, images, (np.arange(count) % 4).astype(np.uint8), suffix)
    return tmp_path


def test_idx_files_plain_and_gzipped(idx):
    images = load_images(f"idx:{idx}")
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(
        images.train.images[..., 0], rng.integers(0, 256, (200, 6, 5), np.uint8)
    )
    assert images.test.images.shape == (50, 6, 5, 1)
    assert images.test.labels.tolist() == [i % 4 for i in range(50)]
    assert images.num_classes == 4


def test_missing_idx_files_say_how_to_get_them(tmp_path):
    with pytest.raises(DataError, match="apt-get install dataset-fashion-mnist") as error:
        load_images(f"idx:{tmp_path}")
    assert f"bash launch/run.sh glyphs {tmp_path}, or python -m furs_jax" in str(error.value)


@pytest.mark.parametrize("damage", ["cut", "magic", "empty", "not gzip"])
def test_damaged_idx_files_are_named(idx, damage):
    path = idx / "train-images-idx3-ubyte.gz"
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(
        {
            "cut": path.read_bytes()[:-100],
            "magic": gzip.compress(b"\1" + content[1:]),
            "empty": b"",
            "not gzip": b"<html>not found</html>",
        }[damage]
    )
    with pytest.raises(DataError, match="train-images-idx3-ubyte.gz is damaged"):
        load_images(f"idx:{idx}")


def _idx(kind: int, shape: tuple[int, ...], content: bytes) -> bytes:
    return struct.pack(f">{1 + len(shape)}I", kind << 8 | len(shape), *shape) + content


BILLIONS = 2_000_000_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_idx(8, (BILLIONS, 6, 5), b"abc"), "damaged .its header claims 60,000,000,000 bytes, of"),
        (_idx(8, (200, 6, 5), bytes(5999)), "damaged .*claims 6,000 bytes|damaged .*holds less"),
        (_idx(8, (200, 6, 5), bytes(6001)), "damaged .*6,000 bytes, and it holds more"),
        (_idx(8, (200, 6, 5), bytes(1 << 24)), "damaged .*6,000 bytes, and it holds more"),
        (_idx(13, (200, 6, 5), bytes(24_000)), "holds floats; only bytes are read"),
        (_idx(11, (200, 6, 5), bytes(12_000)), "holds 16-bit integers; only bytes are read"),
        (_idx(8, (200, 6, 5, 1), bytes(6000)), "damaged .magic number 0x804, not 0x803"),
        (_idx(8, (0, 6, 5), b""), "holds 0 images but 200 labels"),
        (_idx(8, (200, 0, 5), b""), "holds no images"),
    ],
    ids=["claims", "less", "more", "much more", "floats", "integers", "4-D", "none", "thin"],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_hold_what_their_header_says(idx, content, message, suffix):
    (idx / "train-images-idx3-ubyte.gz").unlink()
    path = idx / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=message) as error:
        load_images(f"idx:{idx}")
    assert len(str(error.value).splitlines()) == 1
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100 * (1 << 20 if sys.platform == "darwin" else 1 << 10)


@pytest.mark.parametrize("label", [4, 9, 2])
def test_test_labels_that_training_has_not_are_refused(idx, label):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (200, 6, 5), np.uint8)
    known = np.array([0, 1, 3, 5], np.uint8)  # 2 and 4 lie between them
    _write_idx(idx, "train", images, known[np.arange(200) % 4], ".gz")
    _write_idx(idx, "t10k", images[:50], np.full(50, 3, np.uint8))
    assert load_images(f"idx:{idx}").num_classes == 6
    _write_idx(idx, "t10k", images[:50], np.full(50, label, np.uint8))
    with pytest.raises(DataError, match=f"50 test images in .* no training image has: {label}; "):
        load_images(f"idx:{idx}")


def test_the_last_images_may_not_be_all_or_none_of_them(idx):
    for fraction in (0.001, 0.999):
        with pytest.raises(DataError, match="leaves images both to train on and to hold out"):
            load_dataset(f"idx:{idx}", fraction, "last")


def test_classes_that_are_held_out_as_a_whole_are_said(idx, capsys):
    labels = (np.arange(200) // 50).astype(np.uint8)
    _write_idx(idx, "train", np.zeros((200, 6, 5), np.uint8), labels, ".gz")
    notes.say.cache_clear()
    load_dataset(f"idx:{idx}", 0.25, "last")
    assert "some are of 1 classes that no image to train on has" in capsys.readouterr().err
    load_dataset(f"idx:{idx}", 0.25)
    assert capsys.readouterr().err == ""


def test_digits_are_split_into_three_disjoint_stratified_parts():
    data = load_dataset("digits", search_fraction=0.2)
    sizes = [len(s.labels) for s in (data.train, data.search, data.test)]
    assert sum(sizes) == 1797
    assert sizes == [1149, 288, 360]
    for split in (data.train, data.search, data.test):
        share = np.bincount(split.labels, minlength=10) / len(split.labels)
        assert np.all(np.abs(share - 0.1) < 0.01)
    assert data.train.images.dtype == np.uint8
    assert data.train.images.max() == 255


def test_no_image_is_in_two_splits(idx):
    # Every image is unique, so that its bytes identify it.
    data = load_dataset(f"idx:{idx}", search_fraction=0.25)
    seen = [{image.tobytes() for image in s.images} for s in (data.train, data.search, data.test)]
    assert [len(s) for s in seen] == [150, 50, 50]
    assert len(set.union(*seen)) == 250
    assert len(data.train_and_search.labels) == 200


def test_the_split_is_seeded_and_can_be_the_last_images(idx):
    a, b, c = (load_dataset(f"idx:{idx}", seed=seed).search.images for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    last = load_dataset(f"idx:{idx}", search_split="last").search
    np.testing.assert_array_equal(last.images, load_images(f"idx:{idx}").train.images[-20:])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": "imagenet"}, DataError, "config.data.name can be digits; idx:DIR"),
        (
            {"name": "digits", "search_fraction": 1.5},
            ConfigError,
            "search_fraction=1.5 must be auto or a number above 0",
        ),
        ({"name": "digits", "search_fraction": 0.001}, DataError, "can't hold every class"),
        ({"name": "digits", "search_split": "first"}, ConfigError, "search_split"),
        ({"name": "digits", "pool": 3}, ConfigError, "data.pool=3 must divide the images' 8x8"),
        (
            {"name": "digits", "pool": 0},
            ConfigError,
            "data.pool=0 must be a whole number of at least 1",
        ),
        ({"name": "random:3x3x1:0:9"}, DataError, "must not have a zero"),
        ({"name": "random:3x3"}, DataError, "should be like random:32x32x3:100:1024"),
        ({"name": "tfds:cifar11"}, DataError, "no data set 'cifar11'"),
    ],
)
def test_bad_data_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        load_dataset(**options)


def test_pooled_images_are_means_of_squares_in_every_split():
    whole, pooled = (load_dataset("digits", pool=pool) for pool in (1, 2))
    assert pooled.image_shape == (4, 4, 1)
    for name in ("train", "search", "test"):
        images, small = (getattr(data, name).images for data in (whole, pooled))
        assert np.array_equal(getattr(pooled, name).labels, getattr(whole, name).labels)
        for row, column in np.ndindex(4, 4):
            square = images[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            mean = square.astype(float).mean(axis=(1, 2, 3))
            assert np.abs(small[:, row, column, 0] - mean).max() <= 0.5


@pytest.mark.parametrize("name", ["cifar10", "imagenet2012"])
def test_unprepared_tfds_sets_say_how_to_prepare_them(name, tmp_path):
    with pytest.raises(
        DataError, match=rf'tfds.builder\("{name}", file_format="array_record"'
    ) as error:
        load_dataset(f"tfds:{name}", data_dir=str(tmp_path))
    # TFDS fails without the last, and doesn't ask for it.
    packages = "pip install tensorflow tensorflow-datasets importlib_resources"
    assert packages in str(error.value)


def encoded(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels if pixels.shape[-1] != 1 else pixels[..., 0]).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar_through_tfds(name, classes, monkeypatch):
    import tensorflow_datasets as tfds

    def encode(feature, pixels):  # TFDS encodes its mocks with TensorFlow, else
        return encoded(pixels)

    monkeypatch.setattr(tfds.features.Image, "encode_example", encode)
    with tfds.testing.mock_data(num_examples=60):
        data = load_dataset(f"tfds:{name}", search_split="last")
    assert (len(data.train.labels), len(data.search.labels)) == (54, 6)
    assert data.image_shape == (32, 32, 3)
    assert data.num_classes == classes
    assert data.train.images.dtype == np.uint8


def _numbered(count: int) -> Split:
    number = np.arange(count, dtype=np.uint8)
    return Split(number.reshape(-1, 1, 1, 1), number.astype(np.int32))


def test_an_epoch_meets_each_image_once_and_in_another_order():
    split = _numbered(64)
    epochs = [
        np.concatenate(
            [training_batch(split, 5, step, 16)["label"] for step in range(4 * e, 4 * e + 4)]
        )
        for e in range(2)
    ]
    assert [sorted(e) for e in epochs] == [list(range(64))] * 2
    assert not np.array_equal(*epochs)
    again = training_batch(split, 5, 6, 16)
    np.testing.assert_array_equal(again["label"], epochs[1][32:48])
    assert not np.array_equal(training_batch(split, 6, 6, 16)["label"], again["label"])


def test_evaluation_meets_each_image_once():
    batches = list(evaluation_batches(_numbered(21), 8))
    assert [b["image"].shape for b in batches] == [(8, 1, 1, 1)] * 3
    real = np.concatenate([b["index"][b["weight"] > 0] for b in batches])
    assert real.tolist() == list(range(21))
    for batch in batches:
        np.testing.assert_array_equal(batch["label"], batch["index"])


def test_crops_are_windows_of_the_padded_image():
    images = np.random.default_rng(0).normal(size=(64, 5, 5, 2)).astype(np.float32) + 10
    keys = jax.random.split(jax.random.key(0), 64)
    out = np.asarray(crop_and_flip(keys, jnp.asarray(images), 2, True))
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    found = set()
    for image, source in zip(out, padded, strict=True):
        windows = {
            (i, j, flip): source[i : i + 5, j : j + 5][:, :: -1 if flip else 1]
            for i in range(5)
            for j in range(5)
            for flip in (False, True)
        }
        matches = [k for k, window in windows.items() if np.array_equal(window, image)]
        assert len(matches) == 1
        found.add(matches[0])
    assert len(found) > 20
    same = crop_and_flip(keys, jnp.asarray(images), 0, False)
    np.testing.assert_array_equal(same, images)


def test_normalised_images_have_zero_mean_and_unit_deviation():
    data = load_dataset("digits")
    images = np.asarray(normalise(jnp.asarray(data.train.images), data.mean, data.std))
    assert images.mean() == pytest.approx(0, abs=1e-5)
    assert images.std() == pytest.approx(1, abs=1e-5)
