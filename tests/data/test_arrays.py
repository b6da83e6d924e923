"""Images as arrays: what is read of a file, how they are known again, and what is refused."""

import io
import zipfile

import numpy as np
import pytest

from furs_jax.data import load_dataset, load_images
from furs_jax.data.arrays import given_data
from furs_jax.errors import DataError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 6, 6, 3), np.uint8)
LABELS = np.arange(20) % 2
PAIR = {"images": IMAGES, "labels": LABELS}
FOUR = {
    "train_images": IMAGES,
    "train_labels": LABELS,
    "test_images": IMAGES[:4, ::-1],
    "test_labels": LABELS[:4],
}


@pytest.fixture(params=[np.savez, np.savez_compressed])
def save(request, tmp_path):
    """Writes arrays, and gives the name of the data set."""

    def write(**arrays) -> str:
        request.param(tmp_path / "x.npz", **arrays)
        return f"npz:{tmp_path / 'x.npz'}"

    return write


def member(array: np.ndarray, **header) -> bytes:
    """An array as in an .npz, whose header may claim something else."""
    stream = io.BytesIO()
    np.save(stream, array)
    if not header:
        return stream.getvalue()
    claimed = io.BytesIO()
    told = {"shape": array.shape, "fortran_order": False, "descr": array.dtype.str, **header}
    np.lib.format.write_array_header_1_0(claimed, told)
    return claimed.getvalue() + array.tobytes()


def zipped(path, compression=zipfile.ZIP_STORED, **members: bytes) -> str:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return f"npz:{path}"


def refused(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        load_images(name)
    assert "\n" not in str(error.value)
    assert name in str(error.value)


def test_a_file_holds_what_was_saved(save):
    found = load_images(save(**FOUR, class_names=np.array(["=1+1", "é"])))
    np.testing.assert_array_equal(found.train.images, IMAGES)
    np.testing.assert_array_equal(found.test.images, IMAGES[:4, ::-1])
    assert found.train.labels.dtype == np.int32
    assert found.train.labels.tolist() == LABELS.tolist()
    assert (found.num_classes, found.class_names) == (2, ("=1+1", "é"))


def test_names_of_keras_grey_images_columns_of_labels_and_other_orders_are_read(save):
    """MedMNIST has columns of labels."""
    grey = np.asfortranarray(IMAGES[..., 0])
    labels = LABELS.astype(">u2")[:, None]
    found = load_images(save(x_train=grey, y_train=labels, x_test=grey, y_test=labels, val=[1]))
    np.testing.assert_array_equal(found.train.images, IMAGES[..., :1])
    assert found.test.labels.tolist() == LABELS.tolist()


def test_without_a_test_a_fifth_is_held_out_whatever_the_seed(save, capsys):
    name = save(**PAIR)
    splits = [load_dataset(name, "auto", seed=seed) for seed in (0, 1)]
    assert [len(split.labels) for split in splits[0][1:4]] == [12, 4, 4]
    for split in ("test", "search"):
        pair = [getattr(data, split).images for data in splits]
        assert np.array_equal(*pair) == (split == "test")
    assert len({x.tobytes() for split in splits[0][1:4] for x in split.images}) == 20
    assert "has no labelled test split; 4 of its 20 training images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"pictures": IMAGES, "labels2": LABELS},
            "none of the arrays images, labels, .*'pictures'",
        ),
        ({"images": IMAGES}, "has images, and no labels beside it"),
        ({"test_images": IMAGES, "test_labels": LABELS}, "no images and labels by names"),
        ({**PAIR, "images": IMAGES / 255}, r"must be uint8 .*, not float64 of \(20, 6, 6, 3\)"),
        ({**PAIR, "images": IMAGES[0, 0]}, r"must be uint8 .* of \(6, 3\)"),
        ({**PAIR, "images": IMAGES[:0]}, r"must be uint8 .* of \(0, 6, 6, 3\)"),
        ({**PAIR, "labels": LABELS / 1}, "must be whole numbers .*, not float64"),
        ({**PAIR, "labels": np.eye(20, dtype=int)}, r"whole numbers .* of \(20, 20\)"),
        ({**PAIR, "labels": LABELS[1:]}, "has 20 images and 19 labels"),
        ({**PAIR, "labels": LABELS - 1}, "count the classes from 0; they are -1 to 0"),
        ({**PAIR, "labels": LABELS + 10**9}, "labels up to 1,000,000,001"),
        ({**PAIR, "labels": LABELS + 2**40}, "count the classes from 0"),
        ({**PAIR, "class_names": np.array(["a"])}, "has 1 classes, and the label 1 is beyond"),
        ({**PAIR, "class_names": np.array(["a", "a"])}, "has one name twice"),
        ({**PAIR, "class_names": np.array([b"a", b"b"])}, "must be texts"),
        ({**FOUR, "test_labels": LABELS[:4] + 1}, "the label 2 is beyond"),
        ({**FOUR, "train_labels": LABELS * 0 + 1, "test_labels": LABELS[:4] * 0}, "class 0, of wh"),
        ({**FOUR, "test_images": IMAGES[:4, 1:]}, r"images of \(6, 6, 3\) and of \(5, 6, 3\)"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_arrays_of_another_kind_are_one_line(save, arrays, message):
    refused(save(**arrays), message)


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    monkeypatch.setattr("pickle.load", lambda *_, **__: pytest.fail("unpickled"))
    stream = io.BytesIO()
    np.save(stream, np.array([print, 1], object), allow_pickle=True)
    name = zipped(tmp_path / "x.npz", images=stream.getvalue(), labels=member(LABELS))
    refused(name, "images.npy holds Python objects, which are not read")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    "shape", [(1 << 40, 6, 6, 3), (19, 6, 6, 3), (21, 6, 6, 3), (-20, 6, 6, 3)]
)
def test_a_header_that_claims_another_size_is_refused_before_it_is_read(
    tmp_path, shape, compression
):
    images = member(IMAGES, shape=shape)
    refused(
        zipped(tmp_path / "x.npz", compression, images=images, labels=member(LABELS)),
        "the header of images.npy claims -?[0-9,]+ bytes, of 2,160 in the file",
    )


@pytest.mark.parametrize("field", [20, 24])  # of the directory's entry: packed and unpacked size
def test_a_zip_that_claims_more_than_the_file_is_refused_before_it_is_read(
    tmp_path, field, monkeypatch
):
    name = zipped(tmp_path / "x.npz", images=member(IMAGES), labels=member(LABELS))
    content = bytearray((tmp_path / "x.npz").read_bytes())
    entry = content.index(b"PK\x01\x02") + field
    content[entry : entry + 4] = (1 << 31).to_bytes(4, "little")
    (tmp_path / "x.npz").write_bytes(content)
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("read"))
    refused(name, "images.npy claims 2,147,483,648 bytes, of 2,[0-9]+ in the file.; write it")


def test_other_damage_is_one_line(tmp_path):
    path = tmp_path / "x.npz"
    name = zipped(path, images=member(IMAGES), labels=member(LABELS))
    whole = path.read_bytes()
    refused(f"npz:{tmp_path / 'y.npz'}", "there is no such file")
    for place in range(0, len(whole), 97):
        changed = bytearray(whole)
        changed[place] ^= 64
        path.write_bytes(changed)
        try:
            found = load_images(name)
        except DataError:
            pass
        else:  # of what nothing depends on, as a time
            both = np.concatenate([found.train.images, found.test.images])
            np.testing.assert_array_equal(np.sort(both, axis=None), np.sort(IMAGES, axis=None))
        path.write_bytes(whole[:place])
        refused(name, "is no file of np.savez, or damaged|none of the arrays")


def test_given_arrays_are_named_by_their_digest():
    name = given_data((IMAGES, LABELS))
    assert name.startswith("given:20x6x6x3:")
    assert name == given_data({"images": IMAGES.copy(), "labels": LABELS.tolist()})
    np.testing.assert_array_equal(load_images(name).test.labels, name.value.test.labels)
    changed = IMAGES.copy()
    changed[-1, 0, 0, 0] ^= 1
    others = [
        (changed, LABELS),
        (IMAGES, LABELS[::-1]),
        (IMAGES[..., 0], LABELS),
        tuple(FOUR.values()),
        {**PAIR, "class_names": ["a", "b"]},
        {**PAIR, "class_names": ["b", "a"]},
    ]
    assert len({name, *map(given_data, others)}) == 7
    with pytest.raises(DataError, match="were given to furs_jax.search as arrays; give it the"):
        load_images(str(name) + "")
    for wrong, message in (
        ((IMAGES,), "tuple of 1 parts must be"),
        ({**PAIR, "lables": LABELS}, "has 'lables', which is none of images"),
        ((IMAGES / 255, LABELS), "data: images must be uint8"),
    ):
        with pytest.raises(DataError, match=message):
            given_data(wrong)
