"""What the README promises of a run: who is trained on what, and what is looked at, and when.

The runs are real but for their networks, which are neither trained nor looked at.
"""

import contextlib
import dataclasses
import functools
import importlib
import json
import pathlib
import re
import types
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from configs import digits
from furs_jax.costs import Cost
from furs_jax.data.dataset import AnySplit, Dataset
from furs_jax.errors import ConfigError, FursError, WorkdirError
from furs_jax.furs import measure
from furs_jax.furs.estimate import Estimator
from furs_jax.furs.measure import Reread
from furs_jax.furs.ratios import FURs
from furs_jax.jobs import compare, dispatch, harness, look, prepare
from furs_jax.machine import hosts
from furs_jax.machine.sealed import unseal
from furs_jax.methods import Method, network_adjustment
from furs_jax.networks import get_network
from furs_jax.networks.recorded import record_network
from furs_jax.objectives.cross_entropy import CrossEntropy
from furs_jax.options import parse as options_lib
from furs_jax.options.parse import parse
from furs_jax.run import phases
from furs_jax.run.folder import Workdir
from furs_jax.run.journal import Journal
from furs_jax.training import loading
from furs_jax.training.checkpoint import Checkpoints
from furs_jax.training.distill import Teacher
from furs_jax.training.recipe import Recipe
from furs_jax.training.step import TrainState
from furs_jax.training.trainer import Task, Trainer
from furs_jax.widths.reallocate import reallocate
from furs_jax.widths.sites import choose_sites
from tests import ROOT
from tests.conftest import random_variables
from tests.training.test_step import random_split

search = importlib.import_module("furs_jax.jobs.search")  # furs_jax.search is the function

OPTIONS = {
    "network": "resnet8_cifar",
    "width_multiplier": 0.25,
    "train.batch_size": 16,
    "final.train.batch_size": 8,
    "furs.batch_size": 8,
    "eval_batch_size": 24,
    "cpu_devices": 0,
    "search.rounds": 3,
    "reallocate.step": 0.5,
    "final.seeds": 2,
}
DATA = Dataset(
    "noise", random_split(96), random_split(40, 1), random_split(24, 2), 10, (0.5,), (0.25,)
)


def small(**changes):
    config = digits.get_config()
    config.update_from_flattened_dict({**OPTIONS, **changes})
    return config


class Training(NamedTuple):
    phase: str  # the checkpoint's folder
    trainer: Trainer
    seed: int
    state: TrainState  # at its begin
    monitored: dict  # after its last epoch
    teacher: Teacher | None
    checkpoint_seconds: float
    dtype: str
    devices: int


class Evaluation(NamedTuple):
    variables: Any  # the phase that has made them
    channels: tuple[int, ...]
    split: AnySplit
    batch_size: int


class Estimate(NamedTuple):
    variables: Any
    channels: tuple[int, ...]
    split: AnySplit
    batch_size: int
    num_layers: int
    seed: int
    estimator: Estimator
    dtype: str
    devices: int
    normalises: bool  # as training does


@dataclasses.dataclass
class Recording:
    """What a run did, in order."""

    calls: list
    losses: dict[str, float]  # on the search split, of a phase; else 0.5
    spread: float = 9.0
    separation: float = 9.0

    def of(self, kind: type) -> list:
        return [call for call in self.calls if isinstance(call, kind)]

    def search(self, folder: pathlib.Path, **changes):
        return search.search(small(**changes), folder, quiet=True)


@pytest.fixture
def recording(monkeypatch) -> Recording:
    """In place of trainings, evaluations and estimates; the data is `DATA`."""
    made = Recording([], {})

    def load_dataset(*arguments: Any) -> Dataset:
        made.calls.append(("data", *arguments))
        return DATA

    def load_network(path: str, net: Any, *arguments: Any) -> tuple:
        if "original" in path:  # by a training that only seemed to be
            return net.channels, {"params": pathlib.Path(path).name}
        return loading.load_network(path, net, *arguments)

    def make_trainer(
        task: Task, channels: Sequence[int], recipe: Recipe, split: AnySplit, objective: Any = None
    ) -> Trainer:
        def init(seed: int) -> TrainState:
            return TrainState(step=0, seed=seed, params={}, batch_stats={}, opt_state={})

        objective = objective or CrossEntropy()
        return Trainer(task, tuple(channels), recipe, split, init, lambda: None, None, objective)

    def train(trainer: Trainer, seed: int, folder: pathlib.Path, seconds: float, *rest: Any):
        on_epoch, _, monitor, _, _ = rest
        epochs = trainer.recipe.epochs
        record = {"epoch": epochs, "step": 1, "loss": 0.5, "accuracy": 0.5, "seconds": 1.0}
        monitored = monitor(epochs, folder.name)
        on_epoch({**record, **monitored})
        task, state = trainer.task, trainer.init(seed)
        teacher = getattr(trainer.objective, "teacher", None)
        what = trainer, seed, state, monitored, teacher, seconds
        made.calls.append(Training(folder.name, *what, task.dtype, len(task.devices)))
        return types.SimpleNamespace(variables=folder.name), record

    def make_evaluator(task: Task, channels: Sequence[int]):
        def evaluate(variables: str, split: AnySplit) -> dict[str, float]:
            size = task.eval_batch_size
            made.calls.append(Evaluation(variables, tuple(channels), split, size))
            loss = made.losses.get(str(variables)[:8], 0.5)
            return {"loss": loss, "top1": 0.5, "top5": 0.9}

        return evaluate

    def make_estimate(net, channels, *, preprocess, dtype, devices, cost, **options):
        pixels = np.arange(6, dtype=np.uint8).reshape(1, 2, 3, 1)
        normal = (pixels / 255 - 0.5) / 0.25
        normalises = np.allclose(preprocess(pixels), normal, atol=1e-6)

        def estimate(variables: str, batches: Any, num_layers: int, seed: int) -> FURs:
            of, size = batches.split, batches.batch_size
            what = num_layers, seed, Estimator(**options), dtype, len(devices), normalises
            made.calls.append(Estimate(variables, tuple(channels), of, size, *what))
            values = {field: np.cos(np.arange(len(channels)) ** 2) for field in FURs._fields}
            return FURs(**values)._replace(
                loss=0.5,
                accuracy=0.5,
                draws=5,
                spread=made.spread,
                separation=made.separation,
                images=len(of.labels),
                drawn_share=0.4,
                narrowed=0.9,
            )

        return estimate

    class FakeCheckpoints:
        def __init__(self, folder: pathlib.Path, **_: Any):
            self.folder = folder

        def __enter__(self):
            return self

        def __exit__(self, *_: Any) -> None:
            pass

        def restore(self, abstract: Any) -> TrainState:
            name = self.folder.name
            return TrainState(step=9, seed=9, params=name, batch_stats=name, opt_state=name)

    def channel_importance(apply, channels, variables, batches, devices) -> list[np.ndarray]:
        made.calls.append(("importance", variables["params"], tuple(channels), batches))
        return [np.arange(c)[::-1] for c in channels]

    def inherit(old: TrainState, fresh: TrainState, order: list, axes: dict) -> TrainState:
        made.calls.append(("order", [list(site) for site in order]))
        carried = {name: f"of {old[name]}" for name in ("params", "batch_stats", "opt_state")}
        return fresh.replace(**carried)

    replaced = {
        prepare: {"load_dataset": load_dataset},
        phases: {"train": train},
        harness: {"record_network": lambda *_: {}},
        network_adjustment: {
            "make_trainer": make_trainer,
            "make_evaluator": make_evaluator,
            "Checkpoints": FakeCheckpoints,
            "is_trained": lambda *_: True,
            "channel_importance": channel_importance,
            "inherit": inherit,
            "free_axes": lambda net: {0: [], 2: []},
            "release_programs": lambda: None,
        },
        compare: {
            "is_trained": lambda *_: True,
            "make_trainer": make_trainer,
            "make_evaluator": make_evaluator,
            "load_network": load_network,
            "release_programs": lambda: None,
        },
        measure: {"make_estimate": make_estimate},
        look: {"make_evaluator": make_evaluator},
    }
    for module, names in replaced.items():
        for name, value in names.items():
            monkeypatch.setattr(module, name, value)
    return made


def _same(split, *parts):
    images = np.concatenate([part.images for part in parts])
    return np.array_equal(split.images, images)


def test_three_splits(recording, tmp_path):
    result = recording.search(tmp_path / "w")
    trainings, evaluations = recording.of(Training), recording.of(Evaluation)
    assert [t.phase for t in trainings[:3]] == ["round_00", "round_01", "round_02"]
    assert len(trainings) == 3 + 2 * 2
    # Weights of the rounds come from the training images alone, those of the finals from the
    # search split, too, which has done its work.
    for training in trainings[:3]:
        assert _same(training.trainer.split, DATA.train)
    for training in trainings[3:]:
        assert _same(training.trainer.split, DATA.train, DATA.search)
    # FURs, and what rounds are chosen by, from the search split.
    for estimate, evaluation, training in zip(
        recording.of(Estimate), evaluations, trainings[:3], strict=False
    ):
        assert _same(estimate.split, DATA.search)
        assert _same(evaluation.split, DATA.search)
        assert estimate.normalises
        assert estimate.variables == evaluation.variables == training.phase
        assert estimate.channels == evaluation.channels == training.trainer.channels
    # The test split is read once for each final training, after all else of the search.
    tested = [call for call in recording.calls if isinstance(call, Evaluation)][3:]
    assert all(_same(evaluation.split, DATA.test) for evaluation in tested)
    assert [e.variables for e in tested] == [t.phase for t in trainings[3:]]
    assert recording.calls.index(tested[0]) > recording.calls.index(recording.of(Estimate)[-1])
    assert tested[-1].channels == tuple(result["searched"]["channels"])


def test_hosts_check_that_they_hold_the_same(recording, tmp_path, monkeypatch):
    checked = []
    monkeypatch.setattr(hosts, "agree", lambda what, value: checked.append((what, value)))
    recording.search(tmp_path / "w", **{"search.rounds": 2})
    vectors = [
        [record["next_channels"], record["next_parent"]]
        for record in workdir_lines(tmp_path / "w", "rounds")
    ]
    names = ["the config", "the data", *["the next channel vector"] * 2]
    assert [what for what, _ in checked] == names
    assert checked[0][1]["network"] == "resnet8_cifar"
    assert [value for _, value in checked[2:]] == vectors
    images = DATA.test.images.copy()
    images[-1, 0, 0, 0] ^= 1
    other = DATA._replace(test=DATA.test._replace(images=images))
    monkeypatch.setattr(prepare, "load_dataset", lambda *_: other)
    prepare.prepare(parse(small()))
    assert checked[-1][0] == "the data"
    assert checked[-1][1] != checked[1][1]


def test_without_the_search_split_finals_are_trained_on_the_training_images(recording, tmp_path):
    recording.search(tmp_path / "w", **{"final.use_search_split": False})
    assert all(_same(training.trainer.split, DATA.train) for training in recording.of(Training))


def test_original_start_and_searched_are_trained_alike(recording, tmp_path):
    recording.search(tmp_path / "w", channels=(12, 8, 8, 8, 8, 8), **{"final.train.epochs": 7})
    finals = recording.of(Training)[3:]
    names = [
        f"final_{name}_{seed}" for name in ("original", "start", "searched") for seed in (0, 1)
    ]
    assert [training.phase for training in finals] == names
    original, start, searched = finals[:2], finals[2:4], finals[4:]
    recipe = parse(small(**{"final.train.epochs": 7})).final.train
    for others in zip(original, start, searched, strict=True):
        assert len({training.seed for training in others}) == 1
        for training in others:
            assert training.trainer.recipe == recipe
            assert training.state["params"] == {}
            assert training.teacher is None
    assert original[0].seed != original[1].seed
    assert len({training.trainer.channels for training in finals}) == 3


def test_the_seed_is_that_of_everything_but_the_splits(recording, tmp_path):
    seeds = []
    for seed in (0, 1):
        recording.calls.clear()
        recording.search(tmp_path / str(seed), seed=seed)
        of_trainings = {training.phase: training.seed for training in recording.of(Training)}
        assert len(set(of_trainings.values())) == 3 + 2  # rounds differ, finals are in pairs
        seeds.append([*of_trainings.values(), *(e.seed for e in recording.of(Estimate))])
        assert recording.calls[0][0] == "data"
        assert recording.calls[0][4] == 0  # data.seed
    assert len({*seeds[0]} | {*seeds[1]}) == 2 * (5 + 3)


def test_rounds_follow_from_the_last_one_s_furs(recording, tmp_path):
    recording.search(tmp_path / "w", **{"search.rounds": 2, "furs.method": "fisher"})
    first, second = workdir_lines(tmp_path / "w", "rounds")
    net = recording.of(Training)[0].trainer.task.net
    options = small().reallocate
    expected = reallocate(
        net, first["channels"], first["furs"], initial=net.channels, budget=net.macs(net.channels),
        num_layers=options.num_layers, step=options.step, step_decay=options.step_decay,
    )  # fmt: skip
    assert tuple(first["next_channels"]) == expected == tuple(second["channels"])
    assert second["channels"] != first["channels"]
    for training in recording.of(Training)[:2]:  # each from scratch
        assert training.state["params"] == {}
        assert training.trainer.recipe == parse(small()).train


def workdir_lines(folder, name):
    return Journal(folder / f"{name}.jsonl").read()


def test_controls_change_what_sites_are_chosen_by(recording, tmp_path):
    chosen = {}
    for direction in ("fur", "reversed", "random"):
        folder = tmp_path / direction
        recording.search(
            folder, **{"reallocate.direction": direction, "reallocate.num_layers_decay": 0.0,
                       "reallocate.num_layers": 2},
        )  # fmt: skip
        rounds_ = workdir_lines(folder, "rounds")
        chosen[direction] = [(r["increased"], r["decreased"]) for r in rounds_]
        by_furs = [choose_sites(r["furs"], 2) for r in rounds_]
        if direction != "random":
            up, down = zip(*by_furs, strict=True)
            ways = (up, down) if direction == "fur" else (down, up)
            assert chosen[direction] == list(zip(*ways, strict=True))
    recording.search(tmp_path / "other", seed=1, **{"reallocate.direction": "random"})
    random_ = chosen["random"]
    assert len({str(sites) for sites in random_}) > 1  # others every round
    assert random_[0] != (workdir_lines(tmp_path / "other", "rounds")[0]["increased"][:2])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Of a training of the smallest network and of one twice as wide: folder and variables."""

    @functools.cache
    def save(name: str, width: float):
        net = get_network(name, width, 10, image_shape=(8, 8, 1))
        variables = random_variables(net, net.channels)
        folder = tmp_path_factory.mktemp("c")
        state = TrainState(step=np.int32(1), seed=np.int32(1), opt_state={}, **variables)
        with Checkpoints(folder) as checkpoints:
            checkpoints.save(1, state, {"epoch": 1, "channels": list(net.channels)})
        return str(folder), variables

    return save


def _equal(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def test_a_given_checkpoint_s_weights_begin_the_first_round_or_a_training(
    recording, tmp_path, checkpoint
):
    given, variables = checkpoint("resnet8_cifar", 0.25)
    recording.search(tmp_path / "search", init_from=given)
    first, *others = recording.of(Training)
    _equal(first.state.variables, variables)
    assert first.state["opt_state"] == {}
    assert all(training.state["params"] == {} for training in others)
    recording.calls.clear()
    dispatch.do(parse(small(mode="train", init_from=given)), tmp_path / "train")
    trainings = recording.of(Training)
    assert [training.phase for training in trainings] == ["final_trained_0", "final_trained_1"]
    for training in trainings:
        _equal(training.state.variables, variables)
    with pytest.raises(ConfigError, match="init_from=.* has channels .* not those to train"):
        recording.search(tmp_path / "other", init_from=given, channels=(12, 8, 8, 8, 8, 8))


def test_warm_rounds_go_on_from_the_network_that_they_change(recording, tmp_path):
    recording.losses.update(round_00=0.3, round_01=0.4, round_02=0.5)
    recording.search(
        tmp_path / "w",
        **{"search.warm_start": True, "search.warm_epochs": 3, "search.warm_learning_rate": 0.02,
           "search.patience": 1, "reallocate.step": 0.8, "reallocate.step_decay": 0.3},
    )  # fmt: skip
    records = workdir_lines(tmp_path / "w", "rounds")
    assert [record["next_parent"] for record in records] == [0, 0, 0]
    assert [record["next_step_scale"] for record in records] == [1, 0.5, 0.25]
    net = recording.of(Training)[0].trainer.task.net
    for index, record in enumerate(records):
        expected = reallocate(
            net,
            records[0]["channels"],
            records[0]["furs"],
            initial=net.channels,
            budget=net.macs(net.channels),
            num_layers=network_adjustment.layers_in_round(small().reallocate, index),
            step=0.8 * 0.5**index,
            step_decay=0.3 * 0.5**index,
        )
        assert tuple(record["next_channels"]) == expected
    scratch, *warm = recording.of(Training)[:3]
    assert scratch.trainer.recipe.epochs == small().train.epochs
    for training in warm:
        assert training.state["params"] == "of round_00"
        assert training.state["opt_state"] == "of round_00"  # with its momentum
        recipe = training.trainer.recipe
        assert (recipe.epochs, recipe.learning_rate, recipe.dropout_by_epoch) == (3, 0.02, False)
    for call in recording.calls:
        if isinstance(call, tuple) and call[0] == "importance":
            assert call[1:3] == ("round_00", tuple(records[0]["channels"]))
            assert _same(call[3].split, DATA.search)
    for training in recording.of(Training)[3:]:  # the finals are from scratch all the same
        assert training.state["params"] == {}
        assert training.trainer.recipe.epochs == small().final.train.epochs


def test_the_best_vector_can_be_selected(recording, tmp_path):
    recording.losses.update(round_00=0.5, round_01=0.3, round_02=0.4)
    for select in ("best", "last"):
        result = recording.search(tmp_path / select, **{"search.select": select})
        records = workdir_lines(tmp_path / select, "rounds")
        best, last = records[1]["channels"], records[2]["next_channels"]
        assert result["searched"]["channels"] == {"best": best, "last": last}[select]


@pytest.mark.parametrize(("spread", "rounds_"), [(0.1, 1), (20.0, 3)])
def test_a_search_may_end_when_no_sites_differ(recording, tmp_path, spread, rounds_):
    recording.spread = spread
    recording.search(tmp_path / "w", **{"search.stop_when_equal": True})
    assert len(workdir_lines(tmp_path / "w", "rounds")) == rounds_
    recording.search(tmp_path / "all")
    assert len(workdir_lines(tmp_path / "all", "rounds")) == 3


def test_the_run_s_original_of_the_same_seed_teaches_the_others(recording, tmp_path):
    options = {"kd.teacher": "original", "kd.alpha": 0.6, "kd.temperature": 3.0}
    recording.search(tmp_path / "w", channels=(12, 8, 8, 8, 8, 8), **options)
    for training in recording.of(Training):
        name, _, seed = training.phase.rpartition("_")
        if name in ("round", "final_original"):
            assert training.teacher is None
            continue
        assert training.teacher.variables["params"] == f"final_original_{seed}"
        assert (training.teacher.alpha, training.teacher.temperature) == (0.6, 3.0)


def test_another_run_s_network_teaches_both(recording, tmp_path, checkpoint):
    given, variables = checkpoint("resnet14_cifar", 0.5)
    options = {"kd.teacher": given, "kd.network": "resnet14_cifar", "kd.width_multiplier": 0.5}
    recording.search(tmp_path / "w", **options)
    for training in recording.of(Training):
        if training.phase.startswith("round"):
            assert training.teacher is None
        else:
            _equal(training.teacher.variables, variables)
            assert training.teacher.module.channels[0] == 8


def test_furs_are_of_evenly_spread_images(recording, tmp_path):
    recording.search(tmp_path / "w", **{"furs.images": 7, "search.rounds": 1})
    (estimate,) = recording.of(Estimate)
    places = [0, 5, 11, 17, 22, 28, 34]  # of 40
    assert np.array_equal(estimate.split.images, DATA.search.images[places])


def test_fisher_furs_are_watched_on_one_image_for_40_trained_on(recording, tmp_path):
    options = {"furs.every_epochs": 1, "furs.metric": "accuracy", "search.rounds": 1}
    recording.search(tmp_path / "w", **options)
    watched, decided = recording.of(Estimate)
    assert (watched.estimator.method, watched.estimator.metric) == ("fisher", "loss")
    assert (decided.estimator.method, decided.estimator.metric) == ("dropout", "accuracy")
    assert len(watched.split.labels) == 96 // 40
    assert _same(watched.split, DATA.search.take([0, 20]))
    (line,) = (r for r in workdir_lines(tmp_path / "w", "metrics") if "furs" in r)
    assert line["phase"] == "round_00"
    assert len(line["furs"]) == len(line["furs_stderr"]) == 6


def test_macs_that_were_spent_are_counted(recording, tmp_path):
    result = recording.search(tmp_path / "w", **{"train.epochs": 5, "final.train.epochs": 3})
    per_round = [
        3 * r["macs"] * 5 * (96 // 16) * 16 for r in workdir_lines(tmp_path / "w", "rounds")
    ]
    assert result["search_macs"] == sum(per_round)
    # A backward pass costs two forward ones; 136 images make 17 batches of 8.
    assert result["final_macs"] == 3 * result["searched"]["macs"] * 3 * 17 * 8


def test_the_first_training_is_traced(recording, tmp_path, monkeypatch):
    traces = []

    def traced(folder, on_step):
        traces.append(folder)
        return contextlib.nullcontext(on_step)

    monkeypatch.setattr(phases, "traced", traced)
    trace = str(tmp_path / "trace")
    recording.search(tmp_path / "w", profile=trace)
    assert traces == [trace, *[None] * 6]
    traces.clear()
    dispatch.do(parse(small(mode="train", profile=trace)), tmp_path / "t")
    assert traces == [trace, None]


def test_what_draws_bought_is_said(recording, tmp_path, capsys):
    for draws, said in (("auto", 2), (5, 0)):
        options = {"furs.draws": draws, "search.rounds": 2}
        recording.separation = 0.5
        search.search(small(**options), tmp_path / str(draws))
        assert capsys.readouterr().out.count("draws: more would not tell") == said


def test_mode_train_trains_the_given_widths_by_the_final_recipe(recording, tmp_path):
    config = small(mode="train", channels=(5, 6, 7, 8, 9, 10))
    result = dispatch.do(parse(config), tmp_path / "w")["trained"]
    assert result["channels"] == [5, 6, 7, 8, 9, 10]
    trainings = recording.of(Training)
    assert len(trainings) == len({training.seed for training in trainings}) == 2
    for training in trainings:
        assert training.trainer.channels == (5, 6, 7, 8, 9, 10)
        assert training.trainer.recipe == parse(config).final.train
        assert _same(training.trainer.split, DATA.train, DATA.search)
    assert recording.of(Estimate) == []
    assert all(_same(evaluation.split, DATA.test) for evaluation in recording.of(Evaluation))
    # As final trainings of a search of the same seed are.
    recording.calls.clear()
    recording.search(tmp_path / "search")
    finals = recording.of(Training)[-2:]
    assert [t.seed for t in finals] == [t.seed for t in trainings]


def test_quiet_prints_nothing_and_others_do(recording, tmp_path, capsys):
    recording.search(tmp_path / "w")
    assert capsys.readouterr().out == ""
    search.search(small(), tmp_path / "loud")
    assert "searched" in capsys.readouterr().out


def test_modes_evaluate_and_furs_look_at_the_checkpoint(recording, checkpoint):
    given, variables = checkpoint("resnet8_cifar", 0.25)
    dispatch.do(parse(small(mode="evaluate", init_from=given)), None)
    (evaluation,) = recording.of(Evaluation)
    _equal(evaluation.variables, variables)
    assert _same(evaluation.split, DATA.test)
    dispatch.do(parse(small(mode="furs", init_from=given, **{"furs.images": 10})), None)
    (estimate,) = recording.of(Estimate)
    _equal(estimate.variables, variables)
    assert _same(estimate.split, DATA.search.take(range(0, 40, 4)))
    assert estimate.num_layers == small().reallocate.num_layers


# Option -> another value than `small` has, and what it needs beside it to matter. A path's is
# filled in by the test.
class Other(Method):
    """Finds nothing."""


class Squares(Cost):
    name = unit = "squares"

    def of(self, channels):
        return float(sum(c**2 for c in channels))


CHANGED = {
    "method": (f"{__name__}:Other", {}),
    "cost": (f"{__name__}:Squares", {}),
    "objective": ("furs_jax.objectives:Objective", {}),
    "seed": (1, {}),
    "network": ("plain14_cifar", {}),
    "width_multiplier": (0.5, {}),
    "flops_budget": (3e5, {"width_multiplier": 1.0}),
    "channels": ((12, 8, 8, 8, 8, 8), {}),
    "channels_from": ("result.json", {}),
    "init_from": ("checkpoint", {}),
    "init_head": ("fresh", {"init_from": "checkpoint"}),
    "padding": ("local", {}),
    "dtype": ("bfloat16", {}),
    "cpu_devices": (8, {}),
    "eval_batch_size": (16, {}),
    "checkpoint_seconds": (5.0, {}),
    "profile": ("trace", {}),
    "data.name": ("random:8x8x1:10:200", {}),
    "data.dir": ("d", {}),
    "data.search_fraction": (0.3, {}),
    "data.search_split": ("last", {}),
    "data.seed": (1, {}),
    "data.pool": (2, {}),
    "data.image_size": (8, {}),
    "data.min_scale": (0.5, {}),
    "data.eval_crop": (0.5, {}),
    "data.workers": (1, {}),
    "data.processes": (1, {}),
    "data.prefetch": (1, {}),
    "data.on_corrupt": ("skip", {}),
    "furs.method": ("fisher", {}),
    "furs.metric": ("accuracy", {}),
    "furs.base_drop_rate": (0.1, {}),
    "furs.draws": (7, {}),
    "furs.max_draws": (20, {}),
    "furs.noise": ("gaussian", {}),
    "furs.variance_reduction": (False, {}),
    "furs.fisher_labels": ("sampled", {}),
    "furs.every_epochs": (1, {}),
    "furs.images": (20, {}),
    "furs.batch_size": (16, {}),
    "furs.memory_gib": (1.0, {}),
    "reallocate.direction": ("reversed", {}),
    "reallocate.num_layers": (1, {}),
    "reallocate.num_layers_decay": (3.0, {"search.rounds": 2}),
    "reallocate.step": (0.9, {}),
    "reallocate.step_from_start": (
        True,
        {"channels": (20, 8, 8, 8, 8, 8), "reallocate.step": 0.6},
    ),
    "reallocate.step_decay": (0.3, {"reallocate.step": 0.9}),
    "reallocate.min_channels": (3, {"reallocate.step": 0.9}),
    "reallocate.channel_multiple": (2, {}),
    "search.rounds": (2, {}),
    "search.select": ("best", {}),
    "search.warm_start": (True, {"search.rounds": 2}),
    "search.warm_epochs": (2, {"search.rounds": 2, "search.warm_start": True}),
    "search.warm_learning_rate": (0.01, {"search.rounds": 2, "search.warm_start": True}),
    "search.patience": (1, {"search.rounds": 2}),
    "search.stop_when_equal": (True, {"search.rounds": 2}),
    "kd.teacher": ("original", {}),
    "kd.network": ("resnet14_cifar", {"kd.teacher": "other"}),
    "kd.width_multiplier": (0.5, {"kd.teacher": "other"}),
    "kd.alpha": (0.5, {"kd.teacher": "original"}),
    "kd.temperature": (2.0, {"kd.teacher": "original"}),
    "final.seeds": (2, {}),
    "final.use_search_split": (False, {}),
    **{
        f"{prefix}train.{field}": (value, {})
        for prefix in ("", "final.")
        for field, value in {
            "epochs": 3,
            "batch_size": 24,
            "learning_rate": 0.2,
            "end_learning_rate": 0.0,
            "warmup_epochs": 1.0,
            "momentum": 0.8,
            "nesterov": True,
            "weight_decay": 0.1,
            "label_smoothing": 0.1,
            "dropout": 0.2,
            "dropout_by_epoch": False,
            "dropout_by_depth": False,
            "crop_margin": 2,
            "flip": True,
        }.items()
    },
}


def _told(value):
    """What can be compared of a call."""
    if isinstance(value, np.ndarray):
        return value.shape, zlib.crc32(np.ascontiguousarray(value).tobytes())
    if isinstance(value, dict):
        return {key: _told(x) for key, x in value.items()}
    if isinstance(value, Reread):
        return _told((value.split, value.batch_size))
    if isinstance(value, (tuple, list)):
        return [_told(x) for x in value]
    return None if isinstance(value, types.FunctionType) else repr(value)


def _done(recording, folder, **changes):
    """All that a search asks for, or why it does not begin."""
    recording.calls.clear()
    recording.losses.update(round_00=0.3, round_01=0.4)
    recording.spread = 0.1
    try:
        result = recording.search(folder, **{"search.rounds": 1, "final.seeds": 1, **changes})
    except FursError as error:
        return str(error)
    return [*map(_told, recording.calls), result]


@pytest.fixture(scope="module")
def without() -> dict[str, list]:
    """What was done without an option, by what is given beside it."""
    return {}


@pytest.mark.parametrize("option", CHANGED)
def test_every_option_changes_what_is_done(
    option, recording, tmp_path, checkpoint, monkeypatch, without
):
    def traced(folder, on_step):
        recording.calls.append(("trace", folder))
        return contextlib.nullcontext(on_step)

    def set_up(cpu_devices, batch_sizes):
        recording.calls.append(("devices", cpu_devices))
        return tuple(jax.devices())

    monkeypatch.setattr(phases, "traced", traced)
    monkeypatch.setattr(prepare, "set_up", set_up)

    def given(value):
        if value in ("checkpoint", "other"):
            return checkpoint("resnet8_cifar", 0.25)[0]
        if value == "result.json":
            vector = {"searched": {"channels": [12, 8, 8, 8, 8, 8]}}
            (tmp_path / "result.json").write_text(json.dumps(vector))
            return str(tmp_path / "result.json")
        return value

    value, beside = CHANGED[option]
    beside = {key: given(x) for key, x in beside.items()}
    if str(beside) not in without:
        without[str(beside)] = _done(recording, tmp_path / "before", **beside)
        # Only an option may make a difference.
        assert _done(recording, tmp_path / "again", **beside) == without[str(beside)]
    before = without[str(beside)]
    assert not isinstance(before, str), before
    assert _done(recording, tmp_path / "after", **{**beside, option: given(value)}) != before


def test_a_folder_is_its_config_s_but_for_what_changes_no_result(tmp_path):
    def as_json(config):
        return json.loads(config.to_json_best_effort())

    config = small(cpu_devices=1, **{"final.seeds": 1})
    folder = Workdir(tmp_path, as_json(config))
    folder.start(as_json(config), {})
    folder.close()
    goes_on = set()
    for option, (value, _) in [*CHANGED.items(), ("mode", ("train", {}))]:
        changed = config.copy_and_resolve_references()
        options_lib.override(changed, option, str(value))
        message = None
        try:
            Workdir(tmp_path, as_json(changed)).close()
        except WorkdirError as error:
            message = str(error)
        if message is None:
            goes_on.add(option)
        else:
            assert f"config.{option} (" in message
    assert goes_on == {
        "checkpoint_seconds",
        "profile",
        "data.workers",
        "data.processes",
        "data.prefetch",
        "furs.memory_gib",
    }


def test_no_option_is_left_out():
    assert set(CHANGED) == set(options_lib.OPTIONS) - {"mode"}  # modes have tests of their own


README = (ROOT / "README.md").read_text()


def _named(file: str) -> set[str]:
    """The fields that the README's table of a run's folder names."""
    (row,) = (line for line in README.splitlines() if line.startswith(f"| `{file}` |"))
    return set(re.findall(r"`(\w+)`", row.split("|")[2]))


def test_a_run_s_files_hold_what_the_readme_says(recording, tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "record_network", record_network)
    folder = tmp_path / "w"
    result = recording.search(folder, channels=(12, 8, 8, 8, 8, 8))
    net = recording.of(Training)[0].trainer.task.net
    with_errors = {f"{name}_stderr" for name in ("furs", "loss_increase", "accuracy_drop")}
    for record in workdir_lines(folder, "rounds"):
        assert len(_named("rounds.jsonl")) > 15
        assert set(record) == _named("rounds.jsonl") | with_errors | {"round", "step_scale"}
        assert (record["macs"], record["params"]) == (
            net.macs(record["channels"]),
            net.params(record["channels"]),
        )
        assert record["next_macs"] == net.macs(record["next_channels"]) <= result["budget"]
    config = unseal((folder / "config.json").read_text())
    assert set(config) == {"config", "channels", "network", "data", "versions", "devices"}
    assert config["data"] == {"mean": [0.5], "std": [0.25], "class_names": []}
    assert dict(options_lib.flat(config["config"])).keys() == options_lib.OPTIONS.keys()
    assert tuple(config["channels"]) == recording.of(Training)[0].trainer.channels
    assert config["network"]["original"]["macs"] == result["original"]["macs"]
    assert len(config["devices"]) == len(jax.devices())
    for name in ("original", "start", "searched"):
        entry = result[name]
        assert (entry["macs"], entry["params"]) == (
            net.macs(entry["channels"]),
            net.params(entry["channels"]),
        )
        assert [set(seed) for seed in entry["seeds"]] == [{"seed", "top1", "top5", "loss"}] * 2
        assert entry["top1"] == [0.5, 0.0]
        assert entry["top5"] == [0.9, 0.0]
    for difference in ("difference", "difference_from_start"):
        assert result[difference] == {"top1": [0.0, 0.0], "top5": [0.0, 0.0]}
    phases = [line["phase"] for line in workdir_lines(folder, "metrics")]
    assert phases == [training.phase for training in recording.of(Training)]
    finals = workdir_lines(folder, "finals")
    assert [(line["network"], line["seed"]) for line in finals] == [
        (name, seed) for name in ("original", "start", "searched") for seed in (0, 1)
    ]
    assert unseal((folder / "result.json").read_text()) == result
