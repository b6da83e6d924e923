"""Between rounds: patience, and weights that are inherited."""

import shutil

import numpy as np
import pytest

from furs_jax.furs.significance import spread, sure
from furs_jax.jobs import compare
from furs_jax.jobs.dispatch import do
from furs_jax.jobs.load import load
from furs_jax.jobs.search import search
from furs_jax.methods import _block_rounds, network_adjustment
from furs_jax.methods._following import parent_and_scale
from furs_jax.options.parse import parse
from furs_jax.report.run_record import read_run
from furs_jax.run.lines import selected
from furs_jax.training.checkpoint import latest_step
from furs_jax.training.recipe import make_schedule
from furs_jax.training.trainer import make_trainer
from tests.machine.test_memory import resources
from tests.observed import SIZES, Observer, everything, short_config
from tests.small_runs import content, small_config, timeless


def test_patience_goes_back_to_the_best_network_with_half_the_step():
    records = []
    for index, loss in enumerate([0.5, 0.4, 0.45, 0.41, 0.42, 0.43, 0.3, 0.31]):
        parent, scale = parent_and_scale(records, 2) if records else (None, 1.0)
        records.append({"round": index, "search_loss": loss, "step_scale": scale})
        if parent:
            records[-1]["parent"] = parent["round"]
    assert [r["parent"] for r in records[1:]] == [0, 1, 2, 1, 4, 1, 6]
    assert [r["step_scale"] for r in records] == [1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25]
    assert parent_and_scale(records, 0) == (records[-1], 0.25)


def test_a_warm_search_inherits_moves_blocks_and_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr(_block_rounds, "sure", lambda *_: 0.0)  # whatever was measured
    seen = []
    line = lambda *_: seen.append(resources()["mappings"])  # noqa: E731
    monkeypatch.setattr(network_adjustment, "round_line", line)
    config = small_config(
        **{"search.warm_start": True, "search.warm_epochs": 2, "train.epochs": 4,
           "final.train.epochs": 1, "final.seeds": 1, "final.original": False,
           "search.blocks": True, "depths": (1, 2, 1), "furs.method": "fisher"}
    )  # fmt: skip
    whole = search(config, tmp_path, quiet=True)
    # Programs of the first round are gone when the second one ends, those of the finals, too.
    assert seen[1] < seen[0] + 500
    assert resources()["mappings"] <= seen[0]
    files = content(tmp_path)
    # An epoch from inherited weights ends below one from scratch.
    first = {r["phase"]: r["loss"] for r in files["metrics.jsonl"] if r["epoch"] == 1}
    assert first["round_01"] < 0.8 * first["round_00"]
    cost = [r["train_macs"] for r in files["rounds.jsonl"]]
    assert cost[1] < 0.6 * cost[0]
    assert whole["search_macs"] == sum(cost)
    first, second = files["rounds.jsonl"]
    assert first["next_depths"] == second["depths"] != first["depths"] == [1, 2, 1]
    assert whole["searched"]["depths"] == second["next_depths"]
    assert 0 <= whole["budget"] - whole["searched"]["macs"] <= 0.001 * whole["budget"]
    found, page = load(tmp_path), (tmp_path / "report/index.html").read_text()
    assert (list(found.net.depths), list(found.channels)) == (
        whole["searched"]["depths"],
        whole["searched"]["channels"],
    )
    assert found.predict(np.zeros((2, 8, 8, 1), np.uint8)).shape == (2, 10)
    assert f"<td>{', '.join(map(str, found.net.depths))}</td>" in page

    # As it was when the second round had begun.
    for name in ("result.json", "finals.jsonl"):
        (tmp_path / name).unlink()
    journal = tmp_path / "rounds.jsonl"
    journal.write_text(journal.read_text().splitlines(keepends=True)[0])
    for folder in (tmp_path / "checkpoints").iterdir():
        if folder.name != "round_00":
            shutil.rmtree(folder)
    # And its parent's last checkpoint was deleted, as is said of a damaged one.
    parent = tmp_path / "checkpoints" / "round_00"
    shutil.rmtree(parent / str(latest_step(parent)))
    assert timeless(search(config, tmp_path, quiet=True)) == timeless(whole)
    assert content(tmp_path) == files


@pytest.fixture
def recipes(monkeypatch):
    """The recipes of all trainings, in order."""
    seen = []

    def observed(task, channels, recipe, *rest):
        seen.append(recipe)
        return make_trainer(task, channels, recipe, *rest)

    for module in (network_adjustment, compare):
        monkeypatch.setattr(module, "make_trainer", observed)
    return seen


def first_rates(recipe, sites=6):
    """Of the first step."""
    return np.asarray(make_schedule(recipe, 10, sites).drop_rates(0))


def test_a_training_from_weights_drops_at_the_full_rate_from_its_first_step(tmp_path, recipes):
    full = 0.05 * np.arange(1, 7) / 6  # by depth
    short = {"train.epochs": 1, "final.train.epochs": 1, "final.seeds": 1, "furs.method": "fisher"}
    config = small_config(**short, **{"search.warm_start": True, "search.warm_epochs": 1})
    search(config, tmp_path / "warm", quiet=True)
    scratch, _, warm, *finals = map(first_rates, recipes)  # the second: the parent's shapes
    np.testing.assert_allclose(warm, full, rtol=1e-6)
    for rates in (scratch, *finals):
        assert not rates.any()
    recipes.clear()

    given = {"init_from": str(tmp_path / "warm/checkpoints/round_00"), "seed": 1}
    search(small_config(**short, **given, **{"search.rounds": 1}), tmp_path / "given", quiet=True)
    first, *finals = map(first_rates, recipes)
    np.testing.assert_allclose(first, full, rtol=1e-6)
    for rates in finals:
        assert not rates.any()
    recipes.clear()

    do(parse(small_config(mode="train", **short, **given)), tmp_path / "tuned")
    np.testing.assert_allclose(first_rates(recipes[0]), full, rtol=1e-6)


def test_the_last_or_the_best_vector_is_selected():
    records = [
        {"search_loss": loss, "channels": [index], "next_channels": [index + 1]}
        for index, loss in enumerate([0.5, 0.3, 0.4])
    ]
    assert selected(records, "best") == (1,)
    assert selected(records, "last") == (3,)


@pytest.fixture
def observer(monkeypatch):
    return Observer(monkeypatch)


def chosen(events, kind, phase):
    return [image for e in events if (e.kind, e.phase) == (kind, phase) for image in e.images]


@pytest.mark.parametrize(
    "changes",
    [
        {"furs.draws": 7, "furs.every_epochs": 1},
        {"search.warm_start": True, "search.warm_epochs": 1, "final.use_search_split": False},
    ],
    ids=["scratch", "warm"],
)
def test_rounds_train_on_the_train_split_and_measure_on_the_search_split(
    observer, tmp_path, changes
):
    search(short_config(**changes), tmp_path, quiet=True)
    events = [e for e in observer.events if e.phase.startswith("round")]
    assert {e.phase for e in events} == {"round_00", "round_01"}
    for event in events:
        assert event.splits == {"train" if event.kind == "train" else "search"}
    kinds = {e.kind for e in events}
    assert kinds == {"train", "evaluate", "furs"} | ({"importance"} if len(changes) == 3 else set())
    for phase in ("round_00", "round_01"):
        assert set(chosen(events, "train", phase)) == everything("train")
        # Every image once: the search loss.
        assert sorted(chosen(events, "evaluate", phase)) == sorted(everything("search"))
        assert set(chosen(events, "furs", phase)) == everything("search")
    if "furs.draws" in changes:  # two passes, beside what is watched after two epochs
        watched = 2 * 2
        assert len(chosen(events, "furs", "round_01")) == 2 * SIZES["search"] + watched
    assert len({e.seed for e in events if e.kind == "train"}) == 2


@pytest.mark.parametrize("mode", ["search", "furs"])
def test_furs_may_be_measured_on_some_of_the_search_split(observer, tmp_path, mode):
    few = {"search.rounds": 1, "final.seeds": 1, "furs.images": 6}
    search(short_config(**few), tmp_path, quiet=True)
    if mode == "furs":
        observer.events.clear()
        weights = str(tmp_path / "checkpoints/round_00")
        do(parse(short_config(mode="furs", init_from=weights, **few)), None)
    read = [image for e in observer.events if e.kind == "furs" for image in e.images]
    assert len(read) == len(set(read)) == 6
    assert set(read) < everything("search")


BATCH = 24  # holds the search split


def _stops(observer, folder, rises):
    observer.rises = rises
    config = short_config(
        **{"search.stop_when_equal": True, "search.rounds": 3, "furs.batch_size": BATCH,
           "final.seeds": 1}
    )  # fmt: skip
    search(config, folder)
    return len(read_run(folder).rounds)


def test_a_search_stops_when_no_two_sites_surely_differ(observer, tmp_path, capsys):
    images = SIZES["search"]
    needed = sure(6, images)

    def noise(seed):
        return lambda sites, count: np.random.default_rng(seed).normal(size=(sites, count))

    def apart(seed):  # every site loses the same MACs, so rises are FURs but for their unit
        return spread(noise(seed)(6, BATCH)[:, :images])

    # Equal sites, of which the two farthest apart lie more than two standard errors apart.
    seed = next(seed for seed in range(100) if 2.2 < apart(seed) < 0.9 * needed)
    assert _stops(observer, tmp_path / "equal", noise(seed)) == 1
    said = f"no two sites' FURs differ by more than {apart(seed):.1f} standard errors, and "
    told = " ".join(capsys.readouterr().out.split())  # lines are filled
    assert f"stopped after 1 rounds: {said}{needed:.1f} are needed" in told

    def one_differs(sites, count):
        rises = noise(seed)(sites, count)
        rises[2] += 3
        return rises

    assert _stops(observer, tmp_path / "differ", one_differs) == 3


def test_auto_says_what_its_draws_bought(observer, tmp_path, capsys):
    options = {"furs.draws": "auto", "furs.batch_size": BATCH, "search.rounds": 1}
    config = short_config(**options, **{"final.seeds": 1})  # of equal sites, by the observer
    search(config, tmp_path / "run")
    bought = "10 of at most 50 draws: more would not tell the sites to widen from those to narrow"
    assert f"FURs: {bought}" in capsys.readouterr().out
    weights = str(tmp_path / "run/checkpoints/round_00")
    do(parse(short_config(mode="furs", init_from=weights, **options)), None)
    assert bought in capsys.readouterr().out
