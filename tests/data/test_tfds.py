"""TFDS sets that are prepared: depths, labels and splits other than CIFAR's and ImageNet's."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from furs_jax.data import Reading, load_dataset, load_images, notes, tfds_sets
from furs_jax.errors import DataError, MissingExtraError
from tests.tiny_tfds import png, prepare

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    notes.say.cache_clear()


def examples(count=12, dtype=np.uint8, shape=(4, 4, 1), classes=4):
    top = np.iinfo(dtype).max
    return [(RNG.integers(0, top + 1, shape).astype(dtype), i % classes) for i in range(count)]


def pixels(found):
    return np.stack([image for image, _ in found])


def test_images_of_16_bits_lose_their_lower_ones(tmp_path):
    train, test = (examples(dtype=np.uint16) for _ in range(2))
    prepare(tmp_path, {"train": train, "test": test}, dtype=np.uint16)
    found = load_images("tfds:tiny", str(tmp_path))
    np.testing.assert_array_equal(found.train.images, pixels(train) >> 8)
    np.testing.assert_array_equal(found.test.images, pixels(test) >> 8)
    assert found.train.images.dtype == np.uint8
    assert found.train.labels.tolist() == [i % 4 for i in range(12)]


def test_16_bit_images_of_8_bit_values_are_refused(tmp_path):
    dark = [(np.full((4, 4, 1), 255, np.uint16), i % 4) for i in range(12)]
    prepare(tmp_path, {"train": dark, "test": dark}, dtype=np.uint16)
    with pytest.raises(DataError, match="all 16-bit images of .* are black in 8 bits"):
        load_images("tfds:tiny", str(tmp_path))


def test_images_of_floats_are_of_0_to_1(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    # TFDS encodes them with TensorFlow, else.
    monkeypatch.setattr(tfds.features.Image, "encode_example", lambda feature, image: image)

    def as_png(values):  # as TFDS keeps floats
        return png(np.ascontiguousarray(values).view(np.uint8))

    values = RNG.random((12, 4, 4, 1), np.float32)
    found = [(as_png(image), i % 4) for i, image in enumerate(values)]
    prepare(tmp_path, {"train": found, "test": found}, dtype=np.float32)
    images = load_images("tfds:tiny", str(tmp_path)).train.images
    np.testing.assert_array_equal(images, np.round(255 * values))
    beyond = [(as_png(image * 255), i % 4) for i, image in enumerate(values)]
    prepare(tmp_path / "x", {"train": beyond, "test": beyond}, dtype=np.float32)
    with pytest.raises(DataError, match="example 0 of tiny/1.0.0 train .* can't be used .*floats"):
        load_images("tfds:tiny", str(tmp_path / "x"))


def test_damaged_images_in_memory_are_named(tmp_path):
    def jpeg(image):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=95)
        return buffer.getvalue()

    found = examples(shape=(32, 32, 3))
    prepare(tmp_path, {"train": found, "test": [(jpeg(found[0][0]), 0)]}, shape=(32, 32, 3))
    assert load_images("tfds:tiny", str(tmp_path)).test.images.shape == (1, 32, 32, 3)
    whole = jpeg(found[0][0])
    for i, (data, message) in enumerate(
        (
            (whole[: len(whole) // 2] + b"\xff\xd9", "is damaged .*premature end"),
            (png(found[0][0])[:-300], "is damaged"),
            (png(found[0][0][:16]), r"its shape is \(16, 32, 3\), not \(32, 32, 3\)"),
            (b"%!PS-Adobe-3.0 EPSF-3.0", "no JPEG, PNG"),
        )
    ):
        folder = tmp_path / f"damaged{i}"
        splits = {"train": found, "test": [found[0], (data, 0)]}
        prepare(folder, splits, shape=(32, 32, 3))
        with pytest.raises(
            DataError, match=f"example 1 of tiny/1.0.0 test in .*{message}"
        ) as error:
            load_images("tfds:tiny", str(folder))
        assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("shape", [(4, 4, 1), (None, None, 1)])
def test_labels_that_are_no_class_are_refused(tmp_path, shape, monkeypatch):
    found = examples()
    prepare(tmp_path, {"train": [*found, (found[0][0], -1)], "test": found}, shape)
    with pytest.raises(DataError, match="the split train of 'tiny' has 1 labels, such as -1"):
        load_images("tfds:tiny", str(tmp_path))
    prepare(tmp_path / "x", {"train": found, "test": [*found, (found[0][0], -1)]}, shape)
    with pytest.raises(DataError, match="the split test of 'tiny' has 1 labels, such as -1"):
        load_images("tfds:tiny", str(tmp_path / "x"))
    # TFDS checks against its metadata when it writes, not when it reads.
    monkeypatch.setattr(tfds_sets.TfdsRecords, "label", lambda records, number: 1 << 32)
    prepare(tmp_path / "y", {"train": found, "test": found}, shape)
    with pytest.raises(DataError, match="none of its 4 classes, 0 to 3"):
        load_images("tfds:tiny", str(tmp_path / "y"))


def test_what_is_tested_on_without_a_test_split(tmp_path, capsys):
    def load(name, *splits):
        folder = str(tmp_path / name)
        prepare(folder, dict(zip(splits[::2], splits[1::2], strict=True)))
        images = load_images("tfds:tiny", folder)
        return images, capsys.readouterr().err

    found, other = examples(40), examples(8)
    images, said = load("validation", "train", found, "validation", other)
    np.testing.assert_array_equal(images.test.images, pixels(other))
    assert "its split validation is tested on" in said
    notes.say.cache_clear()
    unlabelled = [(image, -1) for image, _ in found]
    images, said = load("unlabelled", "train", found, "test", unlabelled, "validation", other)
    np.testing.assert_array_equal(images.test.images, pixels(other))
    assert "its split validation is tested on" in said
    images, said = load("train", "train", found)
    assert "8 of its 40 training images, in equal shares of its classes" in said
    assert np.bincount(images.train.labels).tolist() == [8] * 4
    assert np.bincount(images.test.labels).tolist() == [2] * 4
    seen = {image.tobytes() for split in images[:2] for image in split.images}
    assert seen == {image.tobytes() for image in pixels(found)}
    with pytest.raises(DataError, match="has the splits test, and none named train"):
        load("test", "test", found)
    with pytest.raises(DataError, match=r"no labelled split to test on \(train\), and its 4 "):
        load("few", "train", found[:4])


def test_classes_have_the_set_s_names(tmp_path, capsys):
    import tensorflow_datasets as tfds

    label = tfds.features.ClassLabel(names=["cat", "dog", "eel", "fox"])
    found = examples(40)
    of_others = [example for example in found if example[1] != 1]
    prepare(tmp_path, {"train": [*of_others, found[1]], "test": found}, label=label)
    data = load_dataset("tfds:tiny", 0.25, data_dir=str(tmp_path))
    assert data.class_names == ("cat", "dog", "eel", "fox")
    assert "class 'dog' has one image to train on" in capsys.readouterr().err


def test_sets_of_no_classes_are_refused(tmp_path):
    import tensorflow_datasets as tfds

    found = examples()
    label = tfds.features.Scalar(np.int64)
    prepare(tmp_path, {"train": found, "test": found}, label=label)
    with pytest.raises(DataError, match="'tiny' is no classification set"):
        load_images("tfds:tiny", str(tmp_path))


def test_kept_labels_are_read_again_where_they_are_damaged_or_of_another_preparation(tmp_path):
    def load():
        found = load_images("tfds:tiny", str(tmp_path / "set"), Reading(image_size=4))
        return found.train.labels.tolist()

    found = examples()
    prepare(tmp_path / "set", {"train": found, "test": found}, (None, None, 1))
    right = [i % 4 for i in range(12)]
    assert load() == right
    kept = sorted((tmp_path / "cache").rglob("*.npy"))
    assert len(kept) == 2
    for path in kept:
        sound = path.read_bytes()
        for damaged in (
            b"",
            sound[:-2],
            sound[:-8] + bytes([sound[-8] ^ 1]) + sound[-7:],
            sound.replace(b"(13,)", b"(1300000000000,)"),  # allocates nothing
        ):
            path.write_bytes(damaged)
            assert load() == right
            assert path.read_bytes() == sound
    (tmp_path / "set").rename(tmp_path / "old")
    prepare(tmp_path / "set", {"train": found[::-1], "test": found}, (None, None, 1))
    assert load() == right[::-1]


@pytest.mark.parametrize("shape", [(4, 4, 1), (None, None, 1)])
def test_damaged_files_of_a_set_are_one_line(tmp_path, shape):
    def read():
        images = load_images("tfds:tiny", str(tmp_path), Reading(image_size=4, workers=1))
        for split in images[:2]:
            split.examples(np.arange(len(split.labels)))

    prepare(tmp_path, {"train": examples(), "test": examples()}, shape)
    read()
    for path in [path for path in tmp_path.glob("tiny/**/*") if path.is_file()]:
        sound = path.read_bytes()
        for damaged in (b"", sound[: len(sound) // 2], b"{" + sound[:-1]):
            path.write_bytes(damaged)
            with pytest.raises(DataError) as error:
                read()
            assert len(str(error.value).splitlines()) == 1
        path.write_bytes(sound)
    read()


def test_a_missing_extra_is_named_with_what_installs_it(tmp_path, monkeypatch):
    missing = ModuleNotFoundError("No module named 'array_record'", name="array_record")
    installs = r"which is not installed: FURS_EXTRAS=tfds in .* pip install -e '\.\[tfds\]'"
    with (
        pytest.raises(MissingExtraError, match=f"TFDS sets need array_record, {installs}"),
        tfds_sets._explained("tiny", None),
    ):
        raise missing
    prepare(tmp_path, {"train": examples(), "test": examples()}, (None, None, 1))
    monkeypatch.setitem(sys.modules, "grain", None)
    installs = installs.replace("tfds", "images")
    with pytest.raises(MissingExtraError, match=f"images on disk need grain, {installs}"):
        load_images("tfds:tiny", str(tmp_path))
