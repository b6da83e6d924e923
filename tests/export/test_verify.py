"""What was written is run in a process of its own; what computes something else is not kept."""

import json
import os
import sys

import numpy as np
import pytest

import furs_jax
from furs_jax import export
from furs_jax.errors import ConfigError, DamagedError, MissingExtraError, WorkdirError
from furs_jax.export import Format, _verify, load_format
from furs_jax.export._verify import ExportError, compare
from furs_jax.export._written import Wanted, check, write_export
from furs_jax.machine.sealed import read_json, temporary
from tests.conftest import tiny_network
from tests.jobs.trained import CLASSES, as_trained, images, small

SHAPE = (8, 8, 1)
FAKE = """
import sys, numpy
images = numpy.load(sys.argv[1])
numpy.save(sys.argv[2], numpy.load("logits.npy"))
"""


class Fake(Format):
    """Writes the logits themselves, changed, in place of a network."""

    packages = ()
    runs_with = ("numpy",)
    runner = FAKE
    usage = "print('<b>')"
    error = 0.0

    def write(self, found, folder, record, fold):
        logits = found.logits(images(SHAPE))
        logits[3, 2] += self.error * np.abs(logits).max()
        np.save(folder / "logits.npy", logits)


@pytest.fixture(scope="module")
def trained():
    return as_trained(tiny_network())


@pytest.fixture
def fake(monkeypatch):
    """A format that is what the test sets."""
    monkeypatch.setattr("furs_jax.export._written.load_format", lambda *_: fake)
    fake = Fake()
    return fake


def write(trained, folder, name="fake", python=sys.executable, told=""):
    return write_export(Wanted(name, folder, python), trained, images(SHAPE), {"more": 1}, told)


def test_what_is_right_is_kept_with_what_was_found(trained, fake, tmp_path):
    fake.error = 5e-6  # of the largest
    found = write(trained, tmp_path / "a" / "b")
    assert sorted(os.listdir(tmp_path / "a")) == ["b"]
    folder = tmp_path / "a" / "b"
    assert sorted(os.listdir(folder)) == ["README.md", "export.json", "logits.npy"]
    record = read_json(folder / "export.json")
    assert record["verified"] == found._asdict()
    assert (record["format"], record["more"], record["classes"]) == ("fake", 1, list(CLASSES))
    assert found.images == 5
    assert 0 < found.largest_difference <= found.tolerance
    assert found.python.startswith("Python 3.")
    assert f"numpy {np.__version__}" in found.python


def test_what_is_wrong_is_an_error_and_leaves_nothing(trained, fake, tmp_path):
    for error in (1e-4, float("nan")):
        fake.error = error
        with pytest.raises(ExportError, match="computes something else: its logits differ"):
            write(trained, tmp_path / "x")
        assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("runner", "reason"),
    [
        (f"{FAKE}\nimport furs_jax", "it imports furs_jax"),
        ("import sys; sys.exit('no network')", "can't be run by Python 3.*: no network"),
        ("1 / 0", "ZeroDivisionError"),
        ("import sys", "nothing was said"),
        (f"{FAKE}\nnumpy.save(sys.argv[2], images)", r"of the shape \(5, 8, 8, 1\), not \(5, 10\)"),
    ],
)
def test_what_can_t_be_run_is_an_error_and_leaves_nothing(trained, fake, runner, reason, tmp_path):
    fake.runner = runner
    with pytest.raises(ExportError, match=reason) as error:
        write(trained, tmp_path / "x")
    assert "\n" not in str(error.value)
    assert not os.listdir(tmp_path)


def test_the_tolerance_is_absolute_and_grows_with_large_logits():
    logits = np.array([[1.0, -2.0], [3.0, 0.5]], np.float32)
    for scale, allowed in ((1, 1e-4), (100, 3e-3)):
        expected = logits * np.float32(scale)
        for error, passes in ((0.8 * allowed, True), (1.3 * allowed, False)):
            other = expected + np.array([[0, error], [0, 0]], np.float32)
            if passes:
                assert compare(other, expected, "").tolerance == pytest.approx(allowed)
            else:
                with pytest.raises(ExportError, match="something else"):
                    compare(other, expected, "")
    with pytest.raises(ExportError, match="no finite numbers"):
        compare(logits, logits * np.nan, "")


def test_without_what_runs_it_nothing_is_written(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(load_format("pytorch").__class__, "runs_with", ("numpy", "no_such_torch"))
    with pytest.raises(
        ExportError, match="-m pip install numpy no_such_torch, or give .*--python="
    ):
        check(Wanted("pytorch", tmp_path / "x", sys.executable))
    with pytest.raises(ExportError, match="--python=/no/python can't be started"):
        check(Wanted("pytorch", tmp_path / "x", "/no/python"))
    find = export.importlib.util.find_spec
    monkeypatch.setattr(
        export.importlib.util, "find_spec", lambda name: None if name == "onnx" else find(name)
    )
    with pytest.raises(MissingExtraError, match=r"exports as onnx need onnx.*'.\[export\]'"):
        check(Wanted("onnx", tmp_path / "x", sys.executable))
    with pytest.raises(ConfigError, match="folds no BatchNorms"):
        check(Wanted("stablehlo", tmp_path / "x", sys.executable, fold=True))
    assert not os.listdir(tmp_path)


def test_nothing_is_overwritten_but_what_a_kill_left(trained, fake, tmp_path):
    folder = tmp_path / "x"
    temporary(folder).mkdir()
    (temporary(folder) / "half").write_text("written")
    write(trained, folder)
    assert "half" not in os.listdir(folder)
    before = (folder / "export.json").read_text()
    with pytest.raises(WorkdirError, match="exists; give another --out, or move it"):
        write(trained, folder)
    assert (folder / "export.json").read_text() == before


def test_the_card_escapes_names_and_leaves_the_licence_open(trained, fake, tmp_path):
    write(trained, tmp_path / "x", told="## Its story")
    text = (tmp_path / "x" / "README.md").read_text()
    assert "<img" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert "## Its story" in text
    assert "TO BE FILLED IN" in text
    assert "print('<b>')" in text.split("```")[1]  # the format's own
    assert "differ by at most" in text


def test_formats_of_jax_are_loaded_as_a_user_loads_them(tmp_path):
    """Each in a fresh process; then here, from the folder that they lie in."""
    found, pixels = as_trained(small()), images(SHAPE)
    for name in ("safetensors", "stablehlo"):
        write_export(Wanted(name, tmp_path / name, sys.executable), found, pixels, {})
        loaded = furs_jax.load(tmp_path / name)
        np.testing.assert_allclose(loaded.predict(pixels), found.predict(pixels), atol=1e-5)
        assert loaded.classes == CLASSES
        assert loaded.preprocessing == found.preprocessing
    program = loaded.exported
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert str(program.in_avals[0].shape[0]) == "images"
    file = tmp_path / "stablehlo" / "model.stablehlo"
    content = file.read_bytes()
    file.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    with pytest.raises(DamagedError, match="model.stablehlo is damaged.*has changed since"):
        furs_jax.load(tmp_path / "stablehlo")
    (tmp_path / "stablehlo" / "export.json").unlink()
    with pytest.raises(ConfigError, match="has no export.json beside it"):
        furs_jax.load(tmp_path / "stablehlo" / "model.stablehlo")


def test_onnx_is_run_without_jax(trained, tmp_path):
    """The program that checks it says so; here it is asked what it has imported."""
    seen = tmp_path / "seen.json"
    form = load_format("onnx")
    program = form.runner + f"import json; json.dump(list(sys.modules), open({str(seen)!r}, 'w'))"
    form.write(trained, tmp_path, {}, False)
    np.save(tmp_path / "i.npy", images(SHAPE))
    done = _verify._run(sys.executable, program, ["i.npy", "o.npy"], tmp_path)
    assert done.returncode == 0, done.stderr
    modules = json.loads(seen.read_text())
    assert "onnxruntime" in modules
    assert not {"jax", "jaxlib", "flax", "furs_jax"} & set(modules)
    logits = trained.logits(images(SHAPE))
    np.testing.assert_allclose(np.load(tmp_path / "o.npy"), logits, atol=1e-4)
