"""TAS as a run: what is found, told, resumed and refused."""

import json

import numpy as np
import pytest

from furs_jax.errors import ConfigError, DamagedError
from furs_jax.jobs.search import search
from furs_jax.networks.supernet import candidate_widths
from furs_jax.run.journal import Journal
from tests.small_runs import content, small_config

OPTIONS = {
    "method": "tas",
    "width_multiplier": 0.25,
    "prune.width_multiplier": 0.375,
    "reallocate.min_channels": 1,
    "train.epochs": 2,
    "final.train.epochs": 1,
    "final.seeds": 1,
    "final.original": False,
}


def config(**changes):
    return small_config(**{**OPTIONS, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tas")
    return folder, search(config(), folder, quiet=True)


def test_the_likeliest_widths_at_the_budget_are_trained(finished):
    folder, result = finished
    (line,) = [json.loads(text) for text in (folder / "rounds.jsonl").read_text().splitlines()]
    table = np.array(line["probabilities"])
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-3)
    widths = candidate_widths([6, 6, 12, 12, 24, 24])
    assert table.shape == widths.shape
    likeliest = widths[np.arange(6), table.argmax(axis=1)]
    np.testing.assert_array_equal(line["likeliest"], likeliest)
    assert result["searched"]["channels"] == line["channels"]
    assert 0 <= result["budget"] - line["macs"] <= 0.001 * result["budget"]
    assert result["searched"]["macs"] == line["macs"]
    assert result["search_macs"] == line["train_macs"]
    assert result["method"] == "tas"


def test_killed_it_goes_on_from_its_checkpoint_and_its_line(finished):
    folder, result = finished
    files = content(folder)
    for kept in (0, 1):
        for name in ("result.json", "finals.jsonl"):
            (folder / name).unlink()
        if not kept:
            (folder / "rounds.jsonl").unlink()
        again = search(config(), folder, quiet=True)
        assert {**again, "seconds": 0} == {**result, "seconds": 0}
        assert content(folder)["rounds.jsonl"] == files["rounds.jsonl"]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("channels", lambda x: [*x[:-1], x[-1] + 1]),
        ("expected_macs", lambda x: x + 1),
        ("train_macs", lambda x: x + 1),
        ("probabilities", lambda x: x[:-1]),
        ("likeliest", lambda x: [x[0] + 1, *x[1:]]),
    ],
)
def test_a_line_that_does_not_follow_is_found(finished, tmp_path, name, change):
    folder, _ = finished
    record = json.loads((folder / "rounds.jsonl").read_text())
    record.pop("crc32")
    for path in (folder / "config.json",):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    Journal(tmp_path / "rounds.jsonl").append({**record, name: change(record[name])})
    with pytest.raises(DamagedError, match=r"rounds.jsonl is damaged in line 1"):
        search(config(), tmp_path, quiet=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": (4,)}, "leave channels out"),
        ({"init_from": "somewhere"}, "leave init_from out"),
        ({"channels_from": "somewhere"}, "leave channels_from out"),
        ({"cost.resource": "tests.own_cost:Cost"}, "cost.resource="),
        ({"network": "densenet16_cifar"}, "ConvBatchNorm at each site"),
        ({"train.batch_size": 1000}, "train.batch_size=1000 is more than half"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_folder_is_made(changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        search(config(**changes), tmp_path / "w", quiet=True)
    assert not (tmp_path / "w").exists()


def test_a_budget_beyond_the_widest_network_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="larger prune.width_multiplier"):
        search(config(**{"prune.width_multiplier": 0.125}), tmp_path / "w", quiet=True)
    assert not (tmp_path / "w").exists()
