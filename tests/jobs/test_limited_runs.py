"""Runs with other resources, limits and bounded sites: what they begin with, train and find."""

import pytest

from furs_jax.costs.params import Params
from furs_jax.errors import BudgetError, ConfigError, WorkdirError
from furs_jax.jobs import harness
from furs_jax.jobs.search import search
from furs_jax.machine.sealed import read_json, write_json
from furs_jax.methods import Method
from furs_jax.networks import get_network
from furs_jax.networks.recording import record_network
from furs_jax.report.outcome import comparison_table
from furs_jax.report.page import write_page
from furs_jax.report.run_record import read_run
from tests.jobs.recorded import Training, workdir_lines
from tests.small_runs import small_config, timeless

NET = get_network("resnet8_cifar", 0.5, 10, image_shape=(8, 8, 1))
PARAMS, MACS = NET.params(NET.channels), NET.macs(NET.channels)
LIMIT = 0.85 * PARAMS
GIVEN = {
    "width_multiplier": 0.5,
    "final.seeds": 1,
    "reallocate.num_layers": 2,
    "reallocate.num_layers_decay": 0.0,
    "reallocate.fixed": "stage2_block1_conv2",
    "reallocate.max_channels": "stage1_*=14",
}
FIXED = 3
METHODS = {
    "network_adjustment": {"search.rounds": 3},
    "response": {"response.max_trainings": 3, "response.least_gain": 0.0},
    "uniform": {},
}


@pytest.fixture
def told(recording, monkeypatch):
    """Runs that tell their network, too."""
    monkeypatch.setattr(harness, "record_network", record_network)
    return recording


class Widest(Method):
    """Exceeds whatever is limited."""

    def search(self, run):
        return tuple(3 * c for c in run.start)


def allowed(channels) -> bool:
    stays = channels[FIXED] == NET.channels[FIXED] and max(channels[:2]) <= 14
    return NET.params(channels) <= LIMIT and NET.macs(channels) <= 1.5 * MACS and stays


@pytest.mark.parametrize("method", METHODS)
def test_no_vector_exceeds_a_limit_or_moves_a_fixed_site(method, told, tmp_path):
    given = {**GIVEN, **METHODS[method], "method": method, "cost.limits.params": LIMIT}
    result = told.search(tmp_path, **given)
    vectors = {t.phase: t.trainer.channels for t in told.of(Training)}
    assert vectors.pop("final_original_0") == NET.channels  # what it is compared with
    assert len(vectors) >= 1 + len(workdir_lines(tmp_path, "rounds"))
    assert all(map(allowed, vectors.values()))
    found = result["searched"]
    assert found["limits"] == {"params": NET.params(found["channels"])}
    assert 0.97 * MACS < found["macs"] <= result["budget"] == MACS
    # As if it never had been stopped.
    (tmp_path / "result.json").unlink()
    assert timeless(told.search(tmp_path, **given)) == timeless(result)


def test_parameters_may_be_the_resource(told, tmp_path):
    given = {k: v for k, v in GIVEN.items() if "reallocate.m" not in k and "fixed" not in k}
    given |= {"cost.resource": "params", "cost.limits.macs": 1.2 * MACS}
    result = told.search(tmp_path, **given)
    assert result["budget"] == result["original"]["cost"] == PARAMS
    found, cost = result["searched"], Params(NET)
    assert 0.999 * PARAMS <= found["cost"] == cost.of(found["channels"]) <= PARAMS
    assert found["limits"]["macs"] == found["macs"] <= 1.2 * MACS
    lines = workdir_lines(tmp_path, "rounds")
    assert [line["cost"] for line in lines] == [cost.of(line["channels"]) for line in lines]
    run = read_run(tmp_path)
    assert (run.allowance.unit, run.allowance.budget) == ("params", PARAMS)
    assert run.allowance.limits == {"macs": 1.2 * MACS}
    page = tmp_path / "page.html"
    write_page(run, page)
    text = page.read_text()
    assert f"Search by Network Adjustment at {PARAMS:,} params" in text
    assert "per M params)" in text
    assert "limit on macs" in text
    assert "per MMAC" not in text
    assert "parameters" in str(comparison_table(run))


@pytest.mark.parametrize("budget", [{"cost.budget": 20_000.0}, {"cost.budget": 61_000.0}])
def test_a_budget_sets_the_original_s_width(budget, told, tmp_path):
    given = {"cost.resource": "params", "width_multiplier": 1.0, "method": "uniform", **budget}
    result = told.search(tmp_path, **given)
    assert result["budget"] == budget["cost.budget"]
    assert 0 <= result["budget"] - result["searched"]["cost"] <= 0.001 * result["budget"]
    assert read_run(tmp_path).title == f"resnet8_cifar at {result['budget'] / 1e6:g} M params"


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"flops_budget": 1e5, "cost.budget": 1e5, "width_multiplier": 1.0}, ConfigError,
         "flops_budget and cost.budget are the same: give one of them"),
        ({"flops_budget": 1e5, "cost.resource": "params", "width_multiplier": 1.0}, ConfigError,
         "flops_budget counts MACs, and cost.resource is params: give the budget as --config.cost"),
        ({"cost.budget": 1e5}, ConfigError, "cost.budget sets the width .* must stay 1"),
        ({"cost.limits.params": 100.0}, BudgetError,
         r"cost.limits.params=100 can't be kept: with the fewest .* --config.cost.limits.params="),
        ({"reallocate.fixed": "stem"}, ConfigError, "fixed names 'stem', which is no site"),
        ({"reallocate.max_channels": 6}, BudgetError,
         r"at its widest has .* of the budget's .*; give wider ones, or --config.cost.budget="),
        ({"method": "lccl", "cost.limits.params": LIMIT}, ConfigError, "lccl trains the network"),
        ({"method": "autoslim", "cost.limits.params": LIMIT / 50}, BudgetError, "can't be kept"),
    ],
)  # fmt: skip
def test_what_can_t_be_is_refused_before_anything_is_written(given, error, message, tmp_path):
    given = {"width_multiplier": 0.5, "reallocate.fixed": "stage2_block1_conv2", **given}
    with pytest.raises(error, match=message):
        search(small_config(**given), tmp_path / "w", quiet=True)
    assert not (tmp_path / "w").exists()


def test_a_method_of_one_s_own_that_exceeds_a_limit_trains_nothing(told, tmp_path):
    given = {"method": f"{__name__}:Widest", "width_multiplier": 0.5}
    with pytest.raises(ConfigError, match="which exceeds config.cost.limits: let it bring"):
        told.search(tmp_path / "w", **given, **{"cost.limits.params": 1.5 * PARAMS})
    with pytest.raises(ConfigError, match="which moves stage1_block1_conv2: let it bring"):
        told.search(tmp_path / "v", **given, **{"reallocate.fixed": "*1_block1_conv2"})
    assert told.of(Training) == []


def test_runs_of_versions_that_knew_one_cost_go_on(told, tmp_path):
    given = {"width_multiplier": 0.5, "final.seeds": 1, "search.rounds": 1}
    result = told.search(tmp_path, **given)
    stored = read_json(tmp_path / "config.json")
    stored["config"]["cost"] = "macs"
    for name in ("fixed", "max_channels"):
        stored["config"]["reallocate"].pop(name)
    stored.pop("budget")
    write_json(tmp_path / "config.json", {k: v for k, v in stored.items() if k != "crc32"})
    (tmp_path / "result.json").unlink()
    assert read_run(tmp_path).allowance.unit == "MACs"
    assert timeless(told.search(tmp_path, **given)) == timeless(result)
    with pytest.raises(WorkdirError, match="config.cost.resource"):
        told.search(tmp_path, **given, **{"cost.resource": "params"})
