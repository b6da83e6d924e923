"""mode=predict: a CSV that tells of each image file what `predict` tells of its pixels."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

import furs_jax
from furs_jax.errors import ConfigError, DataError, WorkdirError
from furs_jax.jobs.dispatch import do
from furs_jax.options.parse import parse
from furs_jax.run.text import csv_text
from tests.data.encoded import encoded
from tests.jobs.trained import CLASSES, as_trained, images, packed, small
from tests.small_runs import small_config


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    return {
        depth: packed(as_trained(small(shape=(8, 8, depth))), folder / f"{depth}.safetensors")
        for depth in (1, 2, 3)
    }


def predict(network, files, workdir=None, **options):
    config = small_config(mode="predict", init_from=str(network), **options)
    do(parse(config), workdir and str(workdir), None, list(map(str, files)))


def read(text):
    header, *rows = csv.reader(io.StringIO(text))
    assert {len(row) for row in rows} <= {len(header)}
    return header, rows


def test_files_and_folders_are_predicted_as_arrays_are(networks, tmp_path, capsys, monkeypatch):
    pixels = images((8, 8, 3), 4)
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / ".hidden").mkdir()
    names = ["a/2.png", "a/b/1.PNG", "=1.png", "no_suffix"]
    for name, image in zip(names, pixels, strict=True):
        # A frame that the central crop leaves out, where it is not an image of the network's size
        framed = np.pad(image, ((1, 1), (1, 1), (0, 0))) if name == "=1.png" else image
        (tmp_path / name).write_bytes(encoded(framed, "PNG"))
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "a" / ".hidden" / "0.png").write_text("hidden")
    monkeypatch.chdir(tmp_path)
    predict(networks[3], ["a", "=1.png", "no_suffix"])
    header, rows = read(capsys.readouterr().out)
    assert header == ["file", "class", "probability", *(csv_text(f"p({c})") for c in CLASSES)]
    assert [row[0] for row in rows] == ["a/2.png", "a/b/1.PNG", "'=1.png", "no_suffix"]
    # 8 x 0.875 is 7 pixels: 8 of 10 for the framed one would be 0.8
    found = furs_jax.load(networks[3])
    expected = found.predict(_crops(pixels, names))
    told = np.array([[float(x) for x in row[3:]] for row in rows])
    np.testing.assert_allclose(told, expected, atol=2e-6)
    for row, probabilities in zip(rows, expected, strict=True):
        assert row[1] == csv_text(CLASSES[probabilities.argmax()])
        assert float(row[2]) == pytest.approx(probabilities.max(), abs=2e-6)


def _crops(pixels, names):
    """As the decoder's own test has them: the middle 0.875 of the shorter side, resized."""
    from furs_jax.data.decode import central_box, decode_crop

    crops = np.zeros((len(pixels), 8, 8, 3), np.uint8)
    for name, image, out in zip(names, pixels, crops, strict=True):
        framed = np.pad(image, ((1, 1), (1, 1), (0, 0))) if name == "=1.png" else image
        decode_crop(encoded(framed, "PNG"), lambda h, w: central_box(h, w, 0.875), out)
    return crops


def test_a_grey_network_sees_grey(networks, tmp_path):
    """Grey files as they are, colours by their luma."""
    grey = np.repeat(images((16, 16, 1), 1)[0], 3, axis=2)
    colours = images((16, 16, 3), 1)[0]
    for name, image in (("grey.png", grey), ("colours.png", colours)):
        (tmp_path / name).write_bytes(encoded(image, "PNG"))
        luma = np.asarray(Image.fromarray(image).convert("L"))
        (tmp_path / f"luma_{name}").write_bytes(encoded(luma, "PNG"))
    predict(networks[1], [tmp_path], tmp_path / "w")
    _, rows = read((tmp_path / "w" / "predictions.csv").read_text())
    told = {row[0].rpartition("/")[2]: np.array(row[3:], float) for row in rows}
    np.testing.assert_array_equal(told["grey.png"], told["luma_grey.png"])
    # Colours are made grey behind the resizing, not before
    np.testing.assert_allclose(told["colours.png"], told["luma_colours.png"], atol=0.02)


def test_nothing_is_overwritten_and_a_mistake_leaves_nothing(networks, tmp_path):
    (tmp_path / "good.png").write_bytes(encoded(images((8, 8, 3), 1)[0], "PNG"))
    (tmp_path / "zz.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="zz.png is no image or damaged"):
        predict(networks[3], [tmp_path], tmp_path / "w")
    assert not any((tmp_path / "w").iterdir())
    with pytest.warns(UserWarning, match="zz.png is no image.*skipped"):
        predict(networks[3], [tmp_path], tmp_path / "w", **{"data.on_corrupt": "skip"})
    text = (tmp_path / "w" / "predictions.csv").read_text()
    assert [row[0].rpartition("/")[2] for row in read(text)[1]] == ["good.png"]
    with pytest.raises(WorkdirError, match="predictions.csv exists; give another --workdir"):
        predict(networks[3], [tmp_path / "good.png"], tmp_path / "w")
    assert (tmp_path / "w" / "predictions.csv").read_text() == text


def test_what_can_t_be_is_one_line(networks, tmp_path):
    with pytest.raises(ConfigError, match="name the images to be classified"):
        predict(networks[3], [])
    with pytest.raises(DataError, match="there is no file or folder .*/none.png"):
        predict(networks[3], [tmp_path / "none.png"])
    with pytest.raises(DataError, match="has no image"):
        predict(networks[3], [tmp_path])
    with pytest.raises(ConfigError, match="takes images of 2 channels"):
        predict(networks[2], [tmp_path])
    with pytest.raises(ConfigError, match="needs a trained network"):
        do(parse(small_config(mode="predict")), None, None, ["x"])
    wide = packed(as_trained(small(shape=(8, 10, 3))), tmp_path / "wide.safetensors")
    with pytest.raises(ConfigError, match="8x10 pixels, and files are cut to squares"):
        predict(wide, [tmp_path])
