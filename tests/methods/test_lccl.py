"""LCCL's runs."""

import json
import shutil
import types

import numpy as np
import pytest

import furs_jax
from furs_jax.costs import Cost
from furs_jax.errors import ConfigError
from furs_jax.jobs.prepare import prepare
from furs_jax.jobs.search import search
from furs_jax.methods.lccl import LowCostLayers
from furs_jax.networks.families.plain import Plain
from furs_jax.networks.network import TracedNetwork
from furs_jax.objectives.cross_entropy import CrossEntropy
from furs_jax.options.parse import parse
from furs_jax.training.loading import load_network
from furs_jax.training.skipping import SkipPenalty, measure_zeros, skippable
from tests.small_runs import content, small_config

SMALL = {
    "method": "lccl",
    "prune.width_multiplier": 0.5,
    "prune.penalty": 0.01,
    "final.train.epochs": 2,
    "final.original": False,
}


class Sites(Cost):
    """Channels."""

    name = unit = "channels"

    def of(self, channels):
        return float(sum(channels))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lccl") / "w"
    result = search(small_config(**SMALL), folder, quiet=True)
    (folder / "rounds.jsonl").touch()  # of a method that writes none
    return result, folder


def lines(folder):
    return [json.loads(line) for line in (folder / "finals.jsonl").read_text().splitlines()]


def test_a_run_reports_what_its_trained_networks_reach(finished):
    result, folder = finished
    prepared = prepare(parse(small_config(**SMALL)))
    net = prepared.unpruned
    net = net.of(net.channels, skips=tuple(range(6)))
    task, tested = prepared.task._replace(net=net), lines(folder)
    assert result["searched"]["macs"] == net.macs(net.channels)  # dense
    for line in tested:
        path = folder / "checkpoints" / f"final_searched_{line['seed']}"
        _, variables = load_network(str(path), net, "here")
        zeros = measure_zeros(task, variables, task.dataset.test)
        assert line["zeros"] == pytest.approx(zeros)
        assert len(set(zeros)) > 3
        assert line["zeros"] != pytest.approx(measure_zeros(task, variables, task.dataset.train))
        assert line["theoretical_macs"] == round(skippable(net).left(zeros))
    mean = np.mean([line["theoretical_macs"] for line in tested])
    assert result["searched"]["theoretical_macs"] == pytest.approx(mean, abs=0.5)
    assert mean < result["searched"]["macs"]
    assert result["search_macs"] == 0


def test_the_trained_network_is_loaded_with_its_low_cost_layers(finished):
    _, folder = finished
    found = furs_jax.load(folder)
    assert found.net.template.skips == tuple(range(6))
    test = prepare(parse(small_config(**SMALL))).task.dataset.test
    right = found.predict(test.images).argmax(1) == test.labels
    assert right.mean() == pytest.approx(lines(folder)[0]["top1"])


def test_a_killed_run_ends_as_one_that_was_not(finished, tmp_path):
    _, folder = finished
    again = tmp_path / "w"
    shutil.copytree(folder, again)
    (again / "result.json").unlink()
    text = (folder / "finals.jsonl").read_text().splitlines(True)
    (again / "finals.jsonl").write_text(text[0])
    shutil.rmtree(again / "checkpoints" / "final_searched_1")
    search(small_config(**SMALL), again, quiet=True)
    assert content(again) == content(folder)


def test_a_penalty_is_added_where_it_is_given():
    made = []
    for penalty in (0.0, 0.5):
        options = parse(small_config(**{**SMALL, "prune.penalty": penalty}))
        prepared = prepare(options)
        run = types.SimpleNamespace(**prepared._asdict())
        run.task = prepared.task._replace(net=LowCostLayers().network(run))
        made.append(LowCostLayers().objective(run, CrossEntropy()))
    assert made[0] == CrossEntropy()
    assert made[1] == SkipPenalty(CrossEntropy(), skippable(run.task.net), prepared.budget, 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": (12,)}, "no use for channels: .* leave channels out"),
        ({"channels_from": "x"}, "no use for channels_from"),
        ({"init_from": "x"}, "no use for init_from"),
        (
            {"network": "densenet16_cifar", "width_multiplier": 1.0},
            "no low-cost layers for densenet16_cifar",
        ),
        ({"cost.resource": "tests.methods.test_lccl:Sites"}, "prune.penalty counts MACs"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        prepare(parse(small_config(**{**SMALL, **changes})))


def test_a_module_of_ones_own_is_refused():
    """Its rows are of its trace, even of a family of this package."""
    own = TracedNetwork("mine:Net", Plain((4, 6), 3, num_classes=10, stages=2), (8, 8, 1))
    prepared = types.SimpleNamespace(unpruned=own)
    with pytest.raises(ConfigError, match="no low-cost layers for mine:Net"):
        LowCostLayers().check(parse(small_config(**SMALL)), prepared)
