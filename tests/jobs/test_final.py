"""The final trainings: taught by the original, or by another run's network."""

import shutil

import pytest

from furs_jax.data import load_dataset
from furs_jax.errors import ConfigError
from furs_jax.jobs import compare
from furs_jax.jobs.dispatch import do
from furs_jax.jobs.search import search
from furs_jax.jobs.vectors import initial_network
from furs_jax.options.parse import parse
from furs_jax.report.run_record import read_run
from furs_jax.report.table4 import comparison
from furs_jax.run.folder import Files
from furs_jax.training.checkpoint import latest_step
from furs_jax.training.trainer import Trainer
from furs_jax.widths.reallocate import reallocate
from tests.observed import Observer, everything, mark, short_config
from tests.small_runs import small_config, timeless


def test_the_original_teaches_the_searched_network(tmp_path):
    few = {"train.epochs": 1, "final.train.epochs": 2, "search.rounds": 1, "final.seeds": 1}
    alone, taught = (
        search(small_config(**few, **options), tmp_path / name, quiet=True)
        for name, options in (("alone", {}), ("taught", {"kd.teacher": "original"}))
    )
    assert taught["original"] == alone["original"]
    assert taught["searched"]["channels"] == alone["searched"]["channels"]
    assert taught["searched"]["seeds"] != alone["searched"]["seeds"]

    # The teacher's last checkpoint was deleted before it taught.
    files = Files(tmp_path / "taught")
    files.result.unlink()
    files.finals.keep(lambda record: record["network"] == "original")
    teacher = files.checkpoints / "final_original_0"
    shutil.rmtree(teacher / str(latest_step(teacher)))
    shutil.rmtree(files.checkpoints / "final_searched_0")
    config = small_config(**few, **{"kd.teacher": "original"})
    assert timeless(search(config, tmp_path / "taught", quiet=True)) == timeless(taught)


def test_a_teacher_that_is_not_there_is_missed_before_any_training(tmp_path):
    with pytest.raises(ConfigError, match="kd.teacher=.*nowhere: there is no such folder"):
        search(small_config(**{"kd.teacher": "nowhere"}), tmp_path / "w", quiet=True)
    assert not (tmp_path / "w" / "metrics.jsonl").exists()


def _after_a_round(run, initial):
    options = run.config["reallocate"]
    cost, budget = initial_network(small_config(), load_dataset("digits"))
    net = cost.net
    steps = {key: options[key] for key in ("num_layers", "step", "step_decay")}
    furs = run.rounds[0]["furs"]
    return list(reallocate(net, run.start, furs, initial=initial, budget=budget, **steps))


def test_steps_may_be_of_the_widths_begun_with(tmp_path):
    options = {"train.epochs": 1, "final.train.epochs": 1, "search.rounds": 1, "final.seeds": 1}
    config = small_config(channels=(12,), **{"reallocate.step_from_start": True, **options})
    search(config, tmp_path, quiet=True)
    run = read_run(tmp_path)
    assert run.rounds[0]["next_channels"] == _after_a_round(run, run.start)
    assert run.rounds[0]["next_channels"] != _after_a_round(run, run.original)


def test_a_search_from_other_widths_is_compared_with_them_too(tmp_path, capsys):
    options = {"train.epochs": 1, "final.train.epochs": 1, "search.rounds": 1, "final.seeds": 2}
    result = search(small_config(channels=(12, 8, 8, 8, 8, 8), **options), tmp_path)
    assert len({tuple(result[n]["channels"]) for n in ("original", "start", "searched")}) == 3
    for name, reference in (("difference", "original"), ("difference_from_start", "start")):
        expected = result["searched"]["top1"][0] - result[reference]["top1"][0]
        assert result[name]["top1"][0] == pytest.approx(expected)
    last = capsys.readouterr().out.rpartition("top-5 %")[2]
    names = [line.split()[0] for line in last.splitlines() if line]
    assert names[1:6] == ["original", "start", "searched", "difference", "difference"]
    assert last.count("too few seeds to tell") == 2
    assert "better than the original" in last
    assert "better than the start" in last
    run = read_run(tmp_path)
    assert run.rounds[0]["next_channels"] == _after_a_round(run, run.original)
    rows = {row.method: row for row in comparison([run]).rows}
    assert list(rows) == ["original", "start", "Network Adjustment"]
    assert rows["start"].top1.mean == pytest.approx(result["start"]["top1"][0])
    assert rows["original"].top1_difference is None
    assert rows["start"].top1_difference.mean == pytest.approx(
        result["start"]["top1"][0] - result["original"]["top1"][0]
    )
    assert run.original == result["original"]["channels"]
    assert run.start == result["start"]["channels"]


@pytest.fixture
def observer(monkeypatch):
    return Observer(monkeypatch)


def trainings(events):
    """phase -> the seed, the recipe, and the images of every step, in order."""
    found = {}
    for event in events:
        if event.kind == "train":
            seed, recipe, steps = found.setdefault(event.phase, (event.seed, event.recipe, []))
            assert (event.seed, event.recipe) == (seed, recipe)
            steps.append(event.images)
    return found


START = (12, 8, 8, 8, 8, 8)
DIRECTIONS = ("fur", "random", "reversed")


@pytest.mark.parametrize("both", [True, False])
def test_networks_are_trained_alike_and_tested_once(observer, tmp_path, both):
    config = short_config(
        channels=START, **{"final.use_search_split": both, "final.train.epochs": 3}
    )
    search(config, tmp_path, quiet=True)
    done = trainings(observer.events)
    names = ("original", "start", "searched")
    finals = [phase for phase in done if phase.startswith("final")]
    assert finals == [f"final_{name}_{seed}" for name in names for seed in (0, 1)]
    for seed in (0, 1):
        original = done[f"final_original_{seed}"]
        for name in names[1:]:  # seed, recipe, and the order of images
            assert done[f"final_{name}_{seed}"] == original
        assert original[1] == parse(config).final.train
        assert len(original[2]) == 3 * ((48 + 20 if both else 48) // 16)
    allowed = everything("train", "search") if both else everything("train")
    for phase in finals:
        assert {image for step in done[phase][2] for image in step} <= allowed
        if not both:
            assert {image for step in done[phase][2] for image in step} == allowed
    used = {image for phase in finals for step in done[phase][2] for image in step}
    assert used == allowed
    seeds = [done[phase][0] for phase in done if phase.endswith(("_0", "_1", "_00", "_01"))]
    assert len(set(seeds)) == 2 + 2  # two rounds and two finals, all different
    read = [e for e in observer.events if "test" in e.splits]
    assert {e.kind for e in read} == {"evaluate"}
    for phase in finals:  # every image once, and nothing else
        evaluated = [e.images for e in observer.events if (e.kind, e.phase) == ("evaluate", phase)]
        assert sorted(sum(evaluated, ())) == sorted(everything("test"))
    assert {e.phase for e in read} == set(finals)


def test_a_seed_s_teacher_is_the_original_of_that_seed(observer, tmp_path):
    config = short_config(channels=START, **{"kd.teacher": "original"})
    search(config, tmp_path, quiet=True)
    done = trainings(observer.events)
    taught = {(e.phase, e.teacher) for e in observer.events if e.kind == "train"}
    teachers = dict(taught)
    assert len(teachers) == len(taught)
    for phase, teacher in teachers.items():
        expected = None
        if phase.startswith(("final_start", "final_searched")):
            expected = mark(done[f"final_original_{phase[-1]}"][0])
        assert teacher == expected
    assert teachers["final_searched_0"] != teachers["final_searched_1"]


@pytest.mark.parametrize("teacher", [None, "original"])
def test_the_next_network_s_step_is_compiled_while_one_trains(
    recording, tmp_path, monkeypatch, teacher
):
    compiled = []
    monkeypatch.setattr(compare, "is_trained", lambda run, phase, epochs: "original" in phase)
    monkeypatch.setattr(
        Trainer, "compile", lambda self: compiled.append((self.channels, self.recipe))
    )
    config = small_config(**{"final.train.epochs": 9, "kd.teacher": teacher})
    result = search(config, tmp_path, quiet=True)
    searched = (tuple(result["searched"]["channels"]), parse(config).final.train)
    assert compiled == ([] if teacher else [searched])


def test_controls_read_what_the_search_reads(observer, tmp_path):
    seen, vectors = {}, set()
    for direction in DIRECTIONS:
        observer.events.clear()
        config = short_config(
            **{"reallocate.direction": direction, "final.seeds": 1, "search.rounds": 1}
        )
        result = search(config, tmp_path / direction, quiet=True)
        vectors.add(tuple(result["searched"]["channels"]))
        seen[direction] = list(observer.events)
    assert len(vectors) == len(DIRECTIONS)
    assert seen["random"] == seen["fur"]
    assert seen["reversed"] == seen["fur"]


def test_modes_read_the_splits_that_they_say(observer, tmp_path):
    few = {"final.seeds": 1, "search.rounds": 1}
    search(short_config(**few), tmp_path / "search", quiet=True)
    weights = str(tmp_path / "search/checkpoints/final_searched_0")
    for mode, expected in (
        ("evaluate", [("evaluate", {"test"})]),
        ("furs", [("furs", {"search"})]),
        ("train", [("train", {"train", "search"}), ("evaluate", {"test"})]),
    ):
        observer.events.clear()
        do(parse(short_config(mode=mode, init_from=weights, **few)), str(tmp_path / mode))
        read = {}
        for event in observer.events:
            read.setdefault(event.kind, []).extend(event.images)
        assert [(kind, {split for split, _ in images}) for kind, images in read.items()] == expected
        if "evaluate" in read:
            assert sorted(read["evaluate"]) == sorted(everything("test"))
