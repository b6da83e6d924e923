"""python -m furs_jax.export: which network of which run goes where, and what is told of it."""

import json
import os
import re
import textwrap

import numpy as np
import pytest
from PIL import Image

import furs_jax
from furs_jax.data import load_dataset
from furs_jax.export.__main__ import main
from furs_jax.machine.sealed import read_json
from furs_jax.networks import get_network
from furs_jax.training.checkpoint import Checkpoints
from furs_jax.training.step import TrainState
from tests import ROOT
from tests.conftest import random_variables
from tests.data.encoded import encoded
from tests.fake_runs import fake_run
from tests.jobs.trained import as_trained, images, packed, small

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Of a search that never ran, with checkpoints of networks that were never trained."""
    run = fake_run(tmp_path_factory.mktemp("runs") / "r", "resnet8_cifar", 0.25)
    net = get_network("resnet8_cifar", 0.25, 10, image_shape=(8, 8, 1))
    result = json.loads((run.path / "result.json").read_text())
    for number, phase in enumerate(("searched_0", "searched_1", "original_0")):
        channels = result[phase[:-2]]["channels"]
        variables = random_variables(net, channels, seed=number)
        state = TrainState(step=np.int32(1), seed=np.int32(1), opt_state={}, **variables)
        with Checkpoints(run.path / "checkpoints" / f"final_{phase}") as checkpoints:
            checkpoints.save(1, state, {"epoch": 1, "channels": channels})
    return run.path


def session(folder):
    import onnxruntime

    return onnxruntime.InferenceSession(str(folder / "model.onnx"))


@pytest.mark.parametrize(
    ("given", "phase"),
    [
        (["--seed=1"], "searched_1"),
        (["--network=original", "--fold_batch_norms"], "original_0"),
    ],
)
def test_the_network_that_was_asked_for_is_written(run, given, phase, capsys):
    main([str(run), "--format=onnx", *given])
    folder = run / "export" / f"{phase}_onnx"
    assert sorted(os.listdir(folder)) == ["README.md", "export.json", "model.onnx"]
    pixels = load_dataset("digits", 0.2).search.images[:7]
    expected = furs_jax.load(run / "checkpoints" / f"final_{phase}").logits(pixels)
    (computed,) = session(folder).run(None, {"images": pixels})
    np.testing.assert_allclose(computed, expected, atol=1e-4)
    record = read_json(folder / "export.json")
    assert (record["format"], record["trained"]) == ("onnx", phase)
    assert record["data"]["images"] == {"train": 1149, "search": 288, "test": 360}
    assert (record["data"]["name"], record["verified"]["images"]) == ("digits", 64)
    card = (folder / "README.md").read_text()
    assert "train 1,149, search 288, test 360 images" in card
    assert "92.00 ± 2.48" in card  # the searched one's, of 3 seeds
    *files, last = capsys.readouterr().out.splitlines()
    assert [line.rpartition("/")[2] for line in files] == sorted(os.listdir(folder))
    assert last.startswith("verified with Python 3.")


def test_readme_s_block_runs_the_file_on_an_image(run, tmp_path, monkeypatch, capsys):
    section = (ROOT / "README.md").read_text().partition("## Take it away")[2]
    blocks = re.findall(r"\n\n((?: {4}.*\n|\n)+)", section)
    (block,) = (block for block in blocks if "InferenceSession" in block)
    monkeypatch.chdir(tmp_path)
    pixels = load_dataset("digits").test.images[:1]
    Image.fromarray(pixels[0, ..., 0]).resize((90, 120)).save("my_digit.jpg")
    main([str(run), "--format=onnx", "--out=runs/demo/export/searched_0_onnx"])
    capsys.readouterr()
    names = {}
    exec(compile(textwrap.dedent(block), "README.md", "exec"), names)
    image = np.asarray(Image.open("my_digit.jpg").resize((8, 8)))[None, ..., None]
    found = furs_jax.load(run).logits(image)
    np.testing.assert_allclose(names["logits"], found, atol=1e-4)
    assert capsys.readouterr().out.strip() == str(found.argmax())


def test_a_network_of_its_own_file_needs_a_place_and_images(tmp_path, monkeypatch):
    given = as_trained(small())
    path = packed(given, tmp_path / "model.safetensors")
    (tmp_path / "images").mkdir()
    for number, image in enumerate(images((8, 8, 3), 3)):
        (tmp_path / "images" / f"{number}.png").write_bytes(encoded(image, "PNG"))
    command = [str(path), "--format=onnx", "--out=new/onnx"]
    monkeypatch.chdir(tmp_path)
    for missing, reason in (("--out", "give --out=DIR"), ("--images", "give --images=DIR")):
        few = [word for word in command if not word.startswith(missing)]
        with pytest.raises(SystemExit, match=reason):
            main(few)
    main([*command, "--images=images"])
    assert read_json(tmp_path / "new/onnx/export.json")["verified"]["images"] == 3
    pixels = images((8, 8, 1))
    (computed,) = session(tmp_path / "new/onnx").run(None, {"images": pixels})
    np.testing.assert_allclose(computed, given.logits(pixels), atol=1e-4)


def test_mistakes_are_one_line(run, tmp_path):
    checkpoint = str(run / "checkpoints" / "final_searched_1")
    taken = tmp_path / "taken"
    taken.mkdir()
    (run / "export" / "searched_0_onnx").mkdir(parents=True)
    for arguments, reason in (
        (
            ["--format=onnx", "--seed=3"],
            "searched with 3 seeds, counted from 0; there is no seed 3",
        ),
        (["--format=onnx", "--network=start"], "has no network 'start'; it has searched, original"),
        (["--format=onnx", "--seed=2"], "there is no checkpoint in .*final_searched_2"),
        (["--format=onnx", f"--out={taken}"], "taken exists; give another --out"),
        (["--format=onnx"], "export/searched_0_onnx exists"),  # the found one's usual place
        (["--format=gif"], "--format=gif must be one of onnx"),
        ([], "--format"),
        (["--format=pytorch", "--python=/no/python"], "can't be started"),
        (["--format=safetensors", "--fold_batch_norms"], "folds no BatchNorms"),
    ):
        with pytest.raises(SystemExit, match=reason) as error:
            main([str(run), *arguments])
        assert str(error.value).startswith("furs_jax: ")
        assert "\n" not in str(error.value)
    with pytest.raises(SystemExit, match="is one network: leave out --network and --seed"):
        main([checkpoint, "--format=onnx", "--seed=1"])
    with pytest.raises(SystemExit, match="is no run's folder"):
        main([str(tmp_path), "--format=onnx"])
    assert not os.listdir(taken)


def test_the_way_to_a_folder_of_images_is_told_nobody():
    from furs_jax.export._card import short_name

    assert short_name("folder:/home/me/secret/photos/") == "folder:photos"
    assert short_name("tfds:cifar100") == "tfds:cifar100"
    assert short_name("digits") == "digits"
