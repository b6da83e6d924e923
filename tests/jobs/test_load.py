"""A run's network, loaded: it computes what the run has evaluated, and no file's code is run."""

import dataclasses
import itertools
import json
import shutil
import sys

import numpy as np
import pytest

import furs_jax
from furs_jax.data import load_dataset
from furs_jax.errors import ConfigError, DamagedError, DataError, WorkdirError
from furs_jax.jobs import load as load_module
from furs_jax.jobs.dispatch import do
from furs_jax.machine.sealed import read_json, write_json
from furs_jax.options.parse import parse
from tests.small_runs import small_config

TRAINED = {
    "mode": "train",
    "channels": (5, 4, 4, 6, 8, 9),
    "final.train.epochs": 2,
    "final.seeds": 2,
    "checkpoint_seconds": 1e9,  # one checkpoint of each training
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of mode "train"."""
    folder = tmp_path_factory.mktemp("run") / "w"
    do(parse(small_config(**TRAINED)), str(folder))
    return folder


@pytest.fixture
def copy(trained, tmp_path):
    """One that may be changed."""
    return shutil.copytree(trained, tmp_path / "w")


@pytest.fixture(scope="module")
def test_split():
    return load_dataset("digits", 0.2).test


def change(file, **fields):
    """Writes other values into a JSON file, sealed as a run does it; None leaves a field out."""
    changed = {**read_json(file), **fields}
    write_json(file, {key: value for key, value in changed.items() if value is not None})


@pytest.mark.parametrize("seed", [0, 1])
def test_it_predicts_what_the_run_has_evaluated(trained, test_split, seed):
    result = read_json(trained / "result.json")["trained"]["seeds"][seed]
    path = trained / f"checkpoints/final_trained_{seed}"
    found = furs_jax.load(path if seed else trained)
    probabilities = found.predict(test_split.images)
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (360, 10)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    right = probabilities[np.arange(360), test_split.labels]
    assert np.mean(probabilities.argmax(axis=1) == test_split.labels) == pytest.approx(
        result["top1"], abs=1e-6
    )
    assert -np.log(right).mean() == pytest.approx(result["loss"], rel=1e-4)
    assert 0.2 < result["top1"] < 1  # or it would tell nothing


def test_it_holds_what_the_run_has_trained(trained):
    found = furs_jax.load(str(trained))
    assert found.channels == TRAINED["channels"]
    assert found.net.name == "resnet8_cifar"
    assert found.net.channels == (4, 4, 8, 8, 16, 16)  # the original's
    assert found.classes == tuple("0123456789")
    data = load_dataset("digits", 0.2)
    assert found.preprocessing == (data.mean, data.std, (8, 8, 1), 1.0)
    params = found.variables["params"]
    assert type(params["head"]["kernel"]) is np.ndarray
    assert params["head"]["kernel"].shape == (9, 10)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.channels = ()


def test_any_number_of_images_gives_the_same(trained, test_split):
    found = furs_jax.load(trained)
    images = test_split.images[:130]
    expected = found.predict(images)
    for parts in ([0, 1, 130], [0, 63, 64, 130], [0, 0, 5, 130]):
        pieces = [found.predict(images[a:b]) for a, b in itertools.pairwise(parts)]
        np.testing.assert_allclose(np.concatenate(pieces), expected, rtol=1e-5, atol=1e-6)


def test_memory_is_that_of_a_few_images(trained, monkeypatch):
    found, sizes = furs_jax.load(trained), []

    def counted(images):
        sizes.append(len(images))
        return np.zeros((len(images), 10), np.float32)

    found.__dict__["_compute"] = counted
    assert found.predict(np.zeros((150, 8, 8, 1), np.uint8)).shape == (150, 10)
    assert found.predict(np.zeros((3, 8, 8, 1), np.uint8)).shape == (3, 10)
    assert sizes == [64, 64, 32, 4]


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 8, 8, 1), np.float32),
        np.zeros((2, 8, 8, 1), np.int64),
        np.zeros((8, 8, 1), np.uint8),
        np.zeros((2, 9, 8, 1), np.uint8),
        np.zeros((2, 8, 8, 3), np.uint8),
        np.zeros((2, 8, 8), np.uint8),
    ],
)
def test_other_images_are_refused_in_one_line(trained, images):
    with pytest.raises(ConfigError, match=r"takes uint8 images of the shape \(N, 8, 8, 1\)") as e:
        furs_jax.load(trained).predict(images)
    assert f"not {images.dtype} of {images.shape}" in str(e.value)
    assert "\n" not in str(e.value)


def test_of_a_search_it_is_the_searched_network_s_first_seed(copy):
    result = read_json(copy / "result.json")
    result = {"searched": result["trained"], "original": {}, "mode": None, "trained": None}
    change(copy / "result.json", **result)
    (copy / "checkpoints/final_trained_1").rename(copy / "checkpoints/final_searched_0")
    found, other = furs_jax.load(copy), furs_jax.load(copy / "checkpoints/final_trained_0")
    kernels = [network.variables["params"]["head"]["kernel"] for network in (found, other)]
    assert not np.array_equal(*kernels)


def test_an_unfinished_run_says_what_to_do(copy):
    (copy / "result.json").unlink()
    with pytest.raises(WorkdirError, match="is not finished: the command that began it goes on"):
        furs_jax.load(copy)
    path = copy / "checkpoints/final_trained_0"
    with pytest.raises(WorkdirError, match=str(path)):
        furs_jax.load(copy)
    assert furs_jax.load(path).channels == TRAINED["channels"]
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(WorkdirError, match="goes on with it$"):
        furs_jax.load(copy)


def test_a_deleted_checkpoint_says_what_to_do(copy):
    shutil.rmtree(copy / "checkpoints/final_trained_0")
    with pytest.raises(WorkdirError, match="--config.mode=train --config.channels_from=") as error:
        furs_jax.load(copy)
    assert str(copy / "checkpoints/final_trained_0") in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_run_is_refused(copy, tmp_path):
    for path in (tmp_path, tmp_path / "no", copy / "checkpoints", copy / "result.json"):
        with pytest.raises(ConfigError, match="is no run's folder, which has a config.json"):
            furs_jax.load(path)
    with pytest.raises(ConfigError, match="is an address"):
        furs_jax.load("gs://bucket/run")


def test_damage_is_named(copy):
    text = (copy / "config.json").read_text()
    (copy / "config.json").write_text(text.replace("resnet8_cifar", "resnet14_cifar"))
    with pytest.raises(DamagedError, match="config.json is damaged: it has changed since"):
        furs_jax.load(copy)
    (copy / "config.json").write_text(text)
    for data in ({"mean": [0.5]}, {"mean": 1, "std": 1, "class_names": []}):
        change(copy / "config.json", data=data)
        with pytest.raises(DamagedError, match="config.json is damaged: a run's record"):
            furs_jax.load(copy)


def test_a_run_of_an_earlier_version_asks_the_data_set(copy, trained):
    change(copy / "config.json", data=None)
    found, new = furs_jax.load(copy), furs_jax.load(trained)
    assert (found.preprocessing, found.classes) == (new.preprocessing, new.classes)
    config = read_json(copy / "config.json")["config"]
    config["data"]["name"] = "idx:/no/such/folder"
    change(copy / "config.json", config=config)
    with pytest.raises(DataError, match="does not tell how images are prepared.*/no/such/folder"):
        furs_jax.load(copy)


def test_classes_are_called_as_the_data_set_calls_them(copy):
    data = json.loads((copy / "config.json").read_text())["data"]
    change(copy / "config.json", data={**data, "class_names": list("abcdefghij")})
    assert furs_jax.load(copy).classes == tuple("abcdefghij")


def test_a_network_of_one_s_own_is_imported_where_it_is_named_alone(copy, tmp_path, monkeypatch):
    """What the run's files name is not: the module tells when it is executed."""
    (tmp_path / "somebody_s.py").write_text(
        "from furs_jax import get_network\n"
        "def net():\n"
        "    return get_network('resnet8_cifar', 0.25, 10, image_shape=(8, 8, 1)).template\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = {**read_json(copy / "config.json")["config"], "network": "somebody_s:net"}
    config["width_multiplier"] = 1.0
    change(copy / "config.json", config=config)
    with pytest.raises(ConfigError, match=r"load\('.*/w', network='somebody_s:net'\)"):
        furs_jax.load(copy)
    assert "somebody_s" not in sys.modules
    found = furs_jax.load(copy, network="somebody_s:net")
    assert found.net.name == "somebody_s:net"
    assert found.channels == TRAINED["channels"]
    assert found.predict(np.zeros((1, 8, 8, 1), np.uint8)).shape == (1, 10)


def test_no_other_code_of_one_s_own_is_imported_either(copy, tmp_path, monkeypatch):
    """A cost would be, since a budget that is counted in it tells the network's width."""
    (tmp_path / "somebody_s_code.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(tmp_path)
    own = dict.fromkeys(("cost", "method", "objective"), "somebody_s_code:Mine")
    change(copy / "config.json", config={**read_json(copy / "config.json")["config"], **own})
    with pytest.raises(ConfigError, match=r"load\('.*/w', cost='somebody_s_code:Mine'\)"):
        furs_jax.load(copy)
    assert furs_jax.load(copy, cost="macs").channels == TRAINED["channels"]


def test_the_name_is_the_function():
    for _ in range(2):
        assert furs_jax.load is load_module.load
