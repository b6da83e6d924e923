"""A new method, cost, objective or network is one new file: toys, named as a user names them."""

import json

import pytest

from furs_jax.errors import ConfigError
from furs_jax.jobs.prepare import prepare
from furs_jax.jobs.search import search
from furs_jax.options.parse import parse
from furs_jax.training.evaluate import Evaluator
from furs_jax.training.loading import load_network
from tests import ROOT
from tests.small_runs import small_config

TOYS = [path for path in (ROOT / "tests" / "toys").glob("*.py") if path.stem != "__init__"]
SHORT = {"train.epochs": 1, "final.train.epochs": 1, "final.seeds": 1, "search.rounds": 1}


def found(tmp_path, **options):
    config = small_config(**{**SHORT, **options})
    return search(config, tmp_path, quiet=True), tmp_path


def lines(folder, name):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_a_method_a_cost_an_objective_and_a_network_of_one_file_each_work_together(tmp_path):
    """What finds the widths, what they may cost, what is learnt and what is built: all toys."""
    options = {
        "method": "tests.toys.equal:Equal",
        "cost.resource": "tests.toys.width:Width",
        "objective": "tests.toys.focal:Focal",
        "network": "tests.toys.chain:Chain",
        "width_multiplier": 1.0,
    }
    result, folder = found(tmp_path, **options)
    cost = sum(c**1.5 for c in (6, 8, 10))
    assert (result["method"], result["original"]["unit"]) == (options["method"], "channels")
    assert result["budget"] == result["original"]["cost"] == pytest.approx(cost)
    widths = result["searched"]["channels"]
    assert widths != [6, 8, 10]
    assert max(abs(c - 8) for c in widths) <= 2  # what an integer budget leaves of equal ones
    assert 0.99 * cost < result["searched"]["cost"] <= cost
    assert result["search_macs"] == 0
    assert {"loss", "confidence"} <= lines(folder, "metrics.jsonl")[0].keys()
    again = search(small_config(**{**SHORT, **options}), folder, quiet=True)
    assert again == result


def test_furs_are_per_unit_of_the_cost(tmp_path):
    """Network Adjustment by a cost that it doesn't know, at its budget."""
    result, folder = found(tmp_path / "toy", **{"cost.resource": "tests.toys.width:Width"})
    (line,) = lines(folder, "rounds.jsonl")
    start = sum(c**1.5 for c in line["channels"])
    assert line["cost"] == pytest.approx(start) == result["budget"]
    assert 0.99 * start < sum(c**1.5 for c in line["next_channels"]) <= start
    # Equal shares of the cost are dropped, where the rate is not clipped.
    removed = [
        rate * c * ((c + 1) ** 1.5 - (c - 1) ** 1.5)
        for rate, c in zip(line["drop_rates"], line["channels"], strict=True)
    ]
    assert removed == pytest.approx([removed[0]] * len(removed))


def test_a_method_may_prune_while_a_network_trains(tmp_path):
    """What is tested is the smaller network, which computes what the trained one does."""
    options = {"method": "tests.toys.pruned:Pruned", "final.train.epochs": 2, "final.seeds": 2}
    result, folder = found(tmp_path / "w", **options)
    start = result["original"]["channels"]
    assert result["searched"]["channels"] == [start[0] - 2, *start[1:]]
    assert result["searched"]["macs"] < result["original"]["macs"]
    assert result["searched"]["params"] < result["original"]["params"]
    prepared = prepare(parse(small_config(**{**SHORT, **options})))
    net, test = prepared.task.net, prepared.task.dataset.test
    tested = [line for line in lines(folder, "finals.jsonl") if line["network"] == "searched"]
    for line in tested:
        name = f"final_searched_{line['seed']}"
        channels, variables = load_network(str(folder / "checkpoints" / name), net, "here")
        whole = Evaluator(prepared.task, channels)(variables, test)
        assert line["channels"] == result["searched"]["channels"] != list(channels)
        assert line["loss"] == pytest.approx(whole["loss"], rel=1e-5)
        assert line["top1"] == whole["top1"]
    # Killed after one of two trainings, it ends as if it never was.
    kept = (folder / "finals.jsonl").read_text()
    (folder / "result.json").unlink()
    (folder / "finals.jsonl").write_text("".join(kept.splitlines(True)[:3]))
    assert found(tmp_path / "w", **options)[0] == result
    assert (folder / "finals.jsonl").read_text() == kept


@pytest.mark.parametrize("option", ["method", "cost.resource", "objective"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_file", "must be one of .*, or your own as my_module:MyClass"),
        ("no_such_module:X", "can't be imported: No module named 'no_such_module'"),
        ("tests.toys.chain:Nothing", "can't be imported: .*has no attribute 'Nothing'"),
        ("tests.toys.chain:Chain", "is no subclass of furs_jax.*: derive it from that"),
        ("tests.toys.chain:Any", "is no subclass of furs_jax"),
    ],
)
def test_what_is_none_is_refused_before_the_folder_is_made(option, name, message, tmp_path):
    with pytest.raises(ConfigError, match=f"{option}.*{message}"):
        search(small_config(**{option: name}), tmp_path / "w", quiet=True)
    assert not (tmp_path / "w").exists()


def test_a_module_of_ones_own_that_fails_is_one_line(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    for number, (text, kind) in enumerate((("x = y", "NameError: "), ("x = (", "SyntaxError: "))):
        (tmp_path / f"my_failing_{number}.py").write_text(text)
        with pytest.raises(ConfigError, match=f"method='.*' can't be imported: {kind}.*; give my_"):
            search(small_config(method=f"my_failing_{number}:X"), tmp_path / "w", quiet=True)


def test_each_toy_has_at_most_30_lines_and_no_other_file_knows_it():
    assert len(TOYS) >= 4
    for toy in TOYS:
        assert len(toy.read_text().splitlines()) <= 30
    sources = [
        p
        for room in ("furs_jax", "configs", "launch", "tests")
        for p in (ROOT / room).rglob("*.py")
    ]
    assert [p.name for p in sources if "tests.toys" in p.read_text()] == ["test_seams.py"]
