"""Arrays and a module of the caller's in place of names: found, known again, given back."""

import json
import shutil

import flax.linen as nn
import numpy as np
import pytest

import furs_jax
from furs_jax.errors import ConfigError, DataError, WorkdirError
from furs_jax.gates import gate
from furs_jax.machine.sealed import read_json
from tests.small_runs import small_config, timeless


class Row(nn.Module):
    """A network: two convolutions in a row."""

    channels: tuple[int, ...] = (6, 8)
    num_classes: int = 10

    @nn.compact
    def __call__(self, x, gates=None, train=False):
        for site, width in enumerate(self.channels):
            x = gate(nn.relu(nn.Conv(width, (3, 3))(x)), gates, site)
        return nn.Dense(self.num_classes)(x.mean(axis=(1, 2)))


RNG = np.random.default_rng(0)
LABELS = np.arange(240) % 3
IMAGES = np.repeat(RNG.integers(0, 160, (240, 6, 6), np.uint8)[..., None], 3, axis=3)
IMAGES[..., 1] += (40 * LABELS).astype(np.uint8)[:, None, None]
DATA = {
    "train_images": IMAGES[:180],
    "train_labels": LABELS[:180],
    "test_images": IMAGES[180:],
    "test_labels": LABELS[180:],
    "class_names": ["=1+1", "<b>", "c"],
}
SHORT = {
    "width_multiplier": 1.0,
    "train.epochs": 2,
    "train.batch_size": "auto",
    "final.train.epochs": 2,
    "final.train.batch_size": "auto",
    "final.seeds": 1,
    "search.rounds": 1,
    "furs.every_epochs": 0,
    "data.search_fraction": "auto",
    "checkpoint_seconds": 1e9,
    "final.train.crop_margin": 0,
}


def config(**changes):
    return small_config(**{**SHORT, **changes})


def search(folder, data=DATA, network=None, **changes):
    module = Row() if network is None else network
    return furs_jax.search(config(**changes), folder, quiet=True, data=data, network=module)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A finished search's folder and its result."""
    folder = tmp_path_factory.mktemp("given") / "w"
    return folder, search(folder)


@pytest.fixture
def copy(found, tmp_path):
    """One that may be changed."""
    return shutil.copytree(found[0], tmp_path / "w")


def test_the_record_says_what_was_given(found):
    folder, result = found
    record = read_json(folder / "config.json")
    assert record["config"]["data"]["name"].startswith("given:240x6x6x3:")
    assert record["config"]["network"] == ("given:Row(channels=(6, 8), num_classes=10)")
    assert record["config"]["width_multiplier"] == 1.0
    assert record["data"]["class_names"] == DATA["class_names"]
    assert record["data"]["images"] == {"train": 144, "search": 36, "test": 60}
    assert len(result["original"]["channels"]) == 2


def test_what_is_auto_is_chosen_by_the_number_of_images_and_recorded(found):
    options = read_json(found[0] / "config.json")["config"]
    assert (options["train"]["batch_size"], options["final"]["train"]["batch_size"]) == (32, 32)
    assert options["data"]["search_fraction"] == 0.2


def test_the_same_again_is_the_same_run(found, copy):
    assert search(copy) == found[1]
    for file in ("result.json", "finals.jsonl"):
        (copy / file).unlink()
    again = search(copy, data={key: np.array(value) for key, value in DATA.items()})
    assert timeless(again) == timeless(found[1])


def test_others_are_refused_in_one_line(copy):
    images = IMAGES[:180].copy()
    images[0, 0, 0, 0] ^= 1
    for changes, message in (
        (
            {"data": {**DATA, "train_images": images}},
            r"config.data.name \(given:240x6x6x3:.* there",
        ),
        ({"network": Row(channels=(6, 10))}, r"config.network \(given:Row\(channels=\(6, 8"),
        ({"train.batch_size": 16}, r"config.train.batch_size \(32 there, 16 here\)"),
    ):
        with pytest.raises(WorkdirError, match=message) as error:
            search(copy, **changes)
        assert "\n" not in str(error.value)


def test_a_module_of_equal_fields_that_computes_something_else_is_refused(copy):
    """As where a notebook's cell was changed, and executed again."""

    class Other(Row):
        @nn.compact
        def __call__(self, x, gates=None, train=False):
            return Row.__call__(self, x[:, ::2], gates, train)

    Other.__name__ = "Row"
    (copy / "result.json").unlink()
    with pytest.raises(WorkdirError, match="began with another network of the name given:Row"):
        search(copy, network=Other())


def test_images_that_have_changed_behind_their_name_are_refused(tmp_path, monkeypatch):
    """By a run that was killed when it had begun, before it trained anything."""
    file = tmp_path / "x.npz"
    np.savez(file, **DATA)

    def killed(*_):
        raise RuntimeError("killed")

    monkeypatch.setattr("furs_jax.jobs.search.check_journals", killed)
    changes = {"data.name": f"npz:{file}"}
    for _ in range(2):
        with pytest.raises(RuntimeError, match="killed"):
            search(tmp_path / "w", data=None, **changes)
    np.savez(file, **{**DATA, "test_images": IMAGES[180:, ::-1]})
    with pytest.raises(WorkdirError, match=f"began with other images of npz:{file}"):
        search(tmp_path / "w", data=None, **changes)


def test_it_is_loaded_by_an_equal_module_and_predicts(found):
    folder, result = found
    with pytest.raises(
        ConfigError, match=r"given to furs_jax.search: load\('.*', network=MODULE\)"
    ):
        furs_jax.load(folder)
    loaded = furs_jax.load(folder, network=Row())
    assert loaded.classes == tuple(DATA["class_names"])
    shares = loaded.predict(DATA["test_images"])
    score = result["searched"]["seeds"][0]["top1"]
    assert np.mean(shares.argmax(axis=1) == LABELS[180:]) == pytest.approx(score, abs=1e-6)
    named = furs_jax.load(folder, network="tests.jobs.test_given:Row")
    np.testing.assert_array_equal(named.predict(IMAGES[:3]), loaded.predict(IMAGES[:3]))
    for wrong, message in (
        (Row(channels=(6, 8, 4)), "has 2 sites, given:Row.* 3"),
        (3, "network=int must be a name, or a flax.linen module"),
    ):
        with pytest.raises(ConfigError, match=message):
            furs_jax.load(folder, network=wrong)


def test_it_is_exported_with_images_that_are_given(found, tmp_path, capsys):
    from furs_jax.export.__main__ import main

    np.savez(tmp_path / "x.npz", images=IMAGES, labels=LABELS)
    command = [str(found[0]), "--format=stablehlo", f"--out={tmp_path / 'e'}"]
    own = "--own_network=tests.jobs.test_given:Row"
    for arguments, message in (
        ([], "object that was given to furs_jax.search.*--own_network=my_module:MyNet"),
        ([own], "were given to furs_jax.search as arrays.*--images=DIR or npz:FILE"),
    ):
        with pytest.raises(SystemExit, match=message):
            main([*command, *arguments])
    main([*command, own, f"--images=npz:{tmp_path / 'x.npz'}"])
    assert "verified with" in capsys.readouterr().out
    loaded = furs_jax.load(tmp_path / "e")
    expected = furs_jax.load(found[0], network=Row()).predict(IMAGES[:2])
    np.testing.assert_allclose(loaded.predict(IMAGES[:2]), expected, atol=1e-5)


def test_the_page_says_how_to_go_on(found):
    text = (found[0] / "report" / "index.html").read_text()
    assert "furs_jax.search(config, " in text
    assert "data=..., network=...)" in text
    assert "python -m furs_jax.main" not in text


def test_what_was_given_is_not_found_by_its_name(found):
    stored = json.loads((found[0] / "config.json").read_text())["config"]
    with pytest.raises(DataError, match="were given to furs_jax.search as arrays"):
        furs_jax.search(config(**{"data.name": stored["data"]["name"]}), found[0].parent / "x")
    with pytest.raises(ConfigError, match="was given to furs_jax.search as an object; give it"):
        furs_jax.search(config(network=stored["network"]), found[0].parent / "x")
