"""Folders of classes: what is read, what is left out, and which layouts are refused."""

import os
import pathlib
import unicodedata

import numpy as np
import pytest
from PIL import Image

from furs_jax.data import Reading, load_dataset, load_images, notes
from furs_jax.errors import DataError

READING = Reading(image_size=8, workers=1)
CAFE = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")


@pytest.fixture(autouse=True)
def fresh_notes():
    notes.say.cache_clear()


@pytest.fixture
def root(tmp_path):
    """Eight training and two test images of each of two classes."""
    for part, count in (("train", 8), ("val", 2)):
        for name in ("cat", "dog"):
            fill(tmp_path / part / name, count)
    return tmp_path


def fill(folder: pathlib.Path, count: int) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        Image.new("RGB", (8, 8), (20 * i, 9, 99)).save(folder / f"{i}.jpg")


def scan(root, capsys):
    """How many images there are to train on and to test on, and what was said."""
    images = load_images(f"folder:{root}", reading=READING)
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    return len(images.train.labels), len(images.test.labels), said


def test_what_is_read_is_said_once(root, capsys):
    assert scan(root, capsys)[:2] == (16, 4)
    load_images(f"folder:{root}", reading=READING)
    assert capsys.readouterr().err == ""
    notes.say.cache_clear()
    assert scan(root, capsys)[2] == (
        f"furs_jax: folder:{root}: 16 images of 2 classes to train on and 4 in val\n"
    )


def test_hidden_files_and_folders_are_left_out_and_counted(root, capsys):
    for place in ("train", "train/cat", "val/dog"):
        fill(root / place / ".ipynb_checkpoints", 3)
    (root / "train/cat/._0.jpg").write_bytes(b"macOS")
    found = scan(root, capsys)
    assert found[:2] == (16, 4)
    assert "left out: 10 hidden (such as train/.ipynb_checkpoints)" in found[2]


def test_jpeg_s_other_names_are_read_and_other_kinds_counted(root, capsys):
    folder = root / "train" / "cat"
    for i, name in enumerate(("a.jfif", "b.JPE", "c.jif", "d.Jpeg", "e.avif", "f.HEIC", "g")):
        (folder / f"{i}.jpg").rename(folder / name)
    os.mkfifo(folder / "pipe.jpg")  # reading it would wait for ever
    (root / "train" / "labels.csv").write_text("")
    found = scan(root, capsys)
    assert found[:2] == (13, 4)
    assert "1 outside of the class folders (such as train/labels.csv)" in found[2]
    assert "4 of other kinds (such as train/cat/" in found[2]
    for path in (root / "val" / "dog").iterdir():
        path.rename(path.with_suffix(".heic"))
    with pytest.raises(
        DataError, match=r"val/dog has no image .* of other kinds: 2 of \.heic; add"
    ):
        load_images(f"folder:{root}", reading=READING)


def test_an_image_that_links_lead_to_counts_once_in_its_class(root, capsys):
    cat = root / "train" / "cat"
    (cat / "again.jpg").symlink_to("0.jpg")
    os.link(cat / "1.jpg", cat / "hard.jpg")
    (cat / "circle").symlink_to(cat)
    (cat / "more").symlink_to(cat, target_is_directory=True)
    (cat / "gone.jpg").symlink_to("nothing.jpg")
    (cat / "itself.jpg").symlink_to("itself.jpg")
    found = scan(root, capsys)
    assert found[:2] == (16, 4)
    for said in (
        "2 links to images that are read already",
        "2 links to folders that are read already",
        "2 links to nothing",
    ):
        assert said in found[2]


def test_links_to_elsewhere_are_followed(root, capsys):
    store = root / "store"
    (root / "train" / "cat").rename(store)
    (root / "train" / "cat").mkdir()
    for path in sorted(store.iterdir())[:3]:
        (root / "train" / "cat" / path.name).symlink_to(path)
    (root / "val" / "dog").rename(root / "dogs")
    (root / "val" / "dog").symlink_to(root / "dogs")
    assert scan(root, capsys)[:2] == (11, 4)


@pytest.mark.parametrize(
    ("link", "target", "message"),
    [
        ("train/cat/x.jpg", "train/dog/0.jpg", "are one file, in two classes; remove one"),
        ("train/cat/x.jpg", "val/cat/0.jpg", "are one file: an image that is trained on can't be"),
        ("train/cat/x.jpg", "val/dog/0.jpg", "are one file: an image that is trained on can't be"),
        ("train/cat/x", "val/cat", r"are one file \(and 1 more\): an image that is trained on"),
        ("train/cow", "train/dog", "one file, in two classes"),
        ("train/cat/up", "train", "one file, in two classes"),
    ],
)
@pytest.mark.parametrize("hard", [False, True])
def test_an_image_in_two_splits_or_classes_is_refused(root, link, target, message, hard):
    if hard and (root / target).is_file():
        os.link(root / target, root / link)
    else:
        (root / link).symlink_to(root / target)
    if link == "train/cow":
        fill(root / "val" / "cow", 2)
    with pytest.raises(DataError, match=message) as error:
        load_images(f"folder:{root}", reading=READING)
    assert len(str(error.value).splitlines()) == 1
    (root / link).unlink()  # the advice
    if link != "train/cow":
        load_images(f"folder:{root}", reading=READING)


def test_classes_are_matched_by_the_normal_form_of_their_names(root, capsys):
    """macOS decomposes accents, Linux keeps what it is given."""
    fill(root / "train" / CAFE[0], 8)
    fill(root / "val" / CAFE[1], 2)
    assert scan(root, capsys)[:2] == (24, 6)


def test_class_names_that_look_the_same_are_told_apart(root):
    fill(root / "train" / CAFE[0], 8)
    fill(root / "val" / "caf\u1d49", 2)
    with pytest.raises(DataError) as error:
        load_images(f"folder:{root}", reading=READING)
    assert r"café ('caf\xe9')" in str(error.value)
    assert r"('caf\u1d49')" in str(error.value)
    fill(root / "train" / CAFE[1], 8)
    with pytest.raises(DataError, match=r"look the same, 'cafe\\u0301' and 'caf\\xe9'; merge them"):
        load_images(f"folder:{root}", reading=READING)


def test_names_that_are_no_unicode_are_shown_by_their_codes(root):
    os.mkdir(os.fsencode(root / "train") + b"/caf\xe9")
    with pytest.raises(DataError, match=r"Only one of them has: 'caf\\udce9'") as error:
        load_images(f"folder:{root}", reading=READING)
    str(error.value).encode()


def test_a_folder_that_can_not_be_read_is_named(root, monkeypatch):
    def refused(path="."):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refused)
    with pytest.raises(DataError, match="train can't be read .Permission denied.; look why"):
        load_images(f"folder:{root}", reading=READING)


def test_the_only_image_of_a_class_is_trained_on(root, capsys):
    for part in ("train", "val"):
        fill(root / part / "rare", 1)
    data = load_dataset(f"folder:{root}", 0.25, reading=READING)
    assert np.bincount(data.train.labels).tolist() == [6, 6, 1]
    assert np.bincount(data.search.labels).tolist() == [2, 2]
    assert data.class_names == ("cat", "dog", "rare")
    assert (
        f"{root}/train/rare has one image to train on, so none is held" in capsys.readouterr().err
    )


@pytest.mark.parametrize("fraction", [0.001, 0.05, 0.95])
def test_the_search_fractions_that_are_advised_work(root, fraction):
    with pytest.raises(DataError, match="can't hold every class") as error:
        load_dataset(f"folder:{root}", fraction, reading=READING)
    *_, least, _, most = str(error.value).split()
    for advised in (least, most):
        data = load_dataset(f"folder:{root}", float(advised), reading=READING)
        for split in (data.train, data.search):
            assert np.bincount(split.labels).min() >= 1


def flat(root):
    """The classes alone, without train and val."""
    (root / "train").rename(root / "flat")
    for path in (root / "flat").iterdir():
        path.rename(root / path.name)
    for folder in (root / "flat", *(root / "val").iterdir(), root / "val"):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    return root


@pytest.mark.parametrize("layout", ["flat", "train alone"])
def test_without_a_test_part_a_fifth_of_each_class_is_held_out_and_said(root, capsys, layout):
    if layout == "flat":
        flat(root)
    else:
        (root / "val").rename(root.parent / "elsewhere")
    images = load_images(f"folder:{root}", reading=READING)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"furs_jax: folder:{root}: 16 images of 2 classes"
    assert "4 of its 16 training images, in equal shares of its classes, are held out" in said[1]
    assert np.bincount(images.train.labels).tolist() == [6, 6]
    assert np.bincount(images.test.labels).tolist() == [2, 2]
    assert not set(images.train.numbers) & set(images.test.numbers)
    assert images.class_names == ("cat", "dog")
    other = load_dataset(f"folder:{root}", "auto", seed=1, reading=READING)
    assert other.test.numbers.tolist() == images.test.numbers.tolist()


@pytest.mark.parametrize("name", ["Train", "Test", "validation", "eval"])
def test_what_looks_like_a_part_is_no_class_and_not_left_unread(root, name):
    (root / "val").rename(root / name)
    if name == "validation":
        (root / "train").rename(root / "training")
    with pytest.raises(DataError, match=f"should have the folders train and val.*it has .*{name}"):
        load_images(f"folder:{root}", reading=READING)


def test_a_single_class_is_refused(root):
    flat(root)
    (root / "dog").rename(root / "cat" / "dog")
    with pytest.raises(DataError, match="has one folder, cat; it should have one for each class"):
        load_images(f"folder:{root}", reading=READING)
