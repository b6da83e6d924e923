"""SFP and FPGM: which filters are zeroed and when, what is left of the network, and its cost."""

import functools
import itertools
import math
import shutil
import signal
import types

import jax
import numpy as np
import pytest

import furs_jax
from furs_jax.costs.macs import Macs
from furs_jax.data import load_dataset
from furs_jax.errors import BudgetError, ConfigError, DamagedError, FursError, StoppedError
from furs_jax.jobs import compare
from furs_jax.jobs.dispatch import do
from furs_jax.jobs.search import search
from furs_jax.machine.sealed import read_json, write_json
from furs_jax.machine.stop import Stop
from furs_jax.methods.fpgm import GeometricMedian
from furs_jax.methods.sfp import SoftFilterPruning
from furs_jax.networks.filters import alive, filter_weights, pruned_network, site_filters
from furs_jax.networks.network import Network
from furs_jax.options.parse import parse
from furs_jax.training.checkpoint import Checkpoints
from furs_jax.training.loading import load_network, module_record, recorded_network
from furs_jax.training.step import TrainState
from furs_jax.training.train import train
from furs_jax.training.trainer import Task, make_trainer
from furs_jax.widths.kept import removed_within
from tests.conftest import random_variables, tiny_network
from tests.small_runs import small_config, timeless

METHODS = {"sfp": SoftFilterPruning, "fpgm": GeometricMedian}
EPOCHS = 3
DIGITS = load_dataset("digits", 0.2)


def wider() -> Network:
    net = tiny_network()
    return net.of((8, 9, 12, 14), stem=6)


def run_of(net: Network, share: float = 0.6, devices: int = 1) -> types.SimpleNamespace:
    """What a method looks at of a run of the unpruned network `net`."""
    task = Task(net, DIGITS, tuple(jax.devices()[:devices]), "float32", 64)
    options = parse(small_config(**{"final.train.epochs": EPOCHS, "final.train.dropout": 0.1}))
    budget = int(share * net.macs(net.channels))
    return types.SimpleNamespace(
        options=options, task=task, budget=budget, cost=Macs(net), unpruned=net
    )


def state_of(net: Network, seed: int = 0):
    return types.SimpleNamespace(params=random_variables(net, net.channels, seed)["params"])


def slow_norm(filters: np.ndarray) -> list[float]:
    return [math.sqrt(sum(float(w) ** 2 for w in one)) for one in filters]


def slow_distances(filters: np.ndarray) -> list[float]:
    return [sum(math.dist(one, other) for other in filters) for one in filters]


SLOW = {"sfp": slow_norm, "fpgm": slow_distances}


@pytest.mark.parametrize("name", METHODS)
def test_the_zeroed_filters_are_those_of_the_lowest_scores(name):
    net, state = wider(), state_of(wider())
    removed = METHODS[name]().chosen(run_of(net), state)
    assert all(0 < len(own) < c for own, c in zip(removed, net.channels, strict=True))
    for site, layer in enumerate(("1_block1_conv1", "1_block1_conv2", "2_block1_conv1")):
        kernel = np.asarray(state.params[f"stage{layer}"]["conv"]["kernel"], float)
        scores = SLOW[name](kernel.reshape(-1, kernel.shape[-1]).T)
        lowest = sorted(range(len(scores)), key=scores.__getitem__)[: len(removed[site])]
        assert sorted(lowest) == list(removed[site])


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 0.95])
def test_the_budget_is_met_on_the_network_that_is_left(share):
    """One share of all sites, but for what whole channels ask for."""
    net = furs_jax.get_network("resnet14_cifar", 0.5, 10, image_shape=(14, 14, 1))
    rng, budget = np.random.default_rng(0), int(share * net.macs(net.channels))
    ranks = [rng.permutation(c) for c in net.channels]
    removed = removed_within(net, ranks, budget, Macs)
    small = pruned_network(net, removed)
    assert 0.999 * budget <= small.macs(small.channels) <= budget
    kept = np.mean(np.divide(small.channels, net.channels))
    assert np.max(np.abs(small.channels - kept * np.array(net.channels))) < 3
    for own, gone in zip(ranks, removed, strict=True):
        assert set(own[len(own) - len(gone) :]) == set(gone.tolist())
    # Channels at the same places of a trunk cost less: the last ones, of every site.
    same = removed_within(net, [np.arange(c)[::-1] for c in net.channels], budget, Macs)
    assert sum(map(len, same)) <= sum(map(len, removed))


def test_within_the_budget_nothing_is_removed_and_below_one_channel_nothing_can_be():
    net = wider()
    ranks = [np.arange(c) for c in net.channels]
    macs = net.macs(net.channels)
    assert sum(map(len, removed_within(net, ranks, macs, Macs))) == 0
    assert sum(map(len, removed_within(net, ranks, macs - 1, Macs))) > 0
    with pytest.raises(BudgetError, match="can't be met: with 1 channels at every site"):
        removed_within(net, ranks, 100, Macs)


@functools.cache
def trainer_of(method: type, devices: int):
    """Compiled once."""
    run = run_of(wider(), devices=devices)
    recipe = run.options.final.train
    objective = method().objective(run, run.task.objective.of_recipe(recipe))
    return make_trainer(run.task, run.task.net.channels, recipe, DIGITS.train, objective)


def trained(method, run, folder=None, stop_after=None):
    """The state at the end, and the state after each epoch: what is alive, and all weights."""
    seen, filters = [], site_filters(run.task.net)

    def after_epoch(state, epoch):
        state = method.after_epoch(run, state, epoch)
        kept = [np.asarray(alive(state.params, own)) for own in filters]
        norms = [np.linalg.norm(filter_weights(state.params, own), axis=1) for own in filters]
        seen.append((kept, norms))
        return state

    trainer = trainer_of(type(method), len(run.task.devices))
    begun, steps = trainer.init, []
    trainer = trainer._replace(init=lambda seed: after_epoch(begun(seed), 0))

    def on_step(step):
        steps.append(step)
        if stop_after is not None and len(steps) > stop_after:
            stop.signal = signal.SIGTERM

    stop = Stop()
    state, _ = train(trainer, 0, folder, 0.0, on_step=on_step, stop=stop, after_epoch=after_epoch)
    return state, seen


@pytest.fixture(scope="module")
def undisturbed():
    """Of each method: its run, the state that it ends with, and what was seen of every epoch."""
    found = {}
    for name, method in METHODS.items():
        run = run_of(wider())
        found[name] = (run, *trained(method(), run))
    return found


def test_filters_of_sfp_may_come_back(undisturbed):
    _, _, seen = undisturbed["sfp"]
    zeroed = [[own == 0 for own in norms] for _, norms in seen]
    assert len(seen) == EPOCHS + 1
    back = [
        int(np.sum(before & ~after))
        for epochs in itertools.pairwise(zeroed)
        for before, after in zip(*epochs, strict=True)
    ]
    assert sum(back) > 0
    # After the last epoch, and no earlier, nothing is left of them.
    assert all(own.all() for kept, _ in seen[:-1] for own in kept)
    assert [list(~own) for own in seen[-1][0]] == [list(own) for own in zeroed[-1]]


def test_filters_of_fpgm_never_come_back(undisturbed):
    run, state, seen = undisturbed["fpgm"]
    for kept, _ in seen:
        assert [list(own) for own in kept] == [list(own) for own in seen[0][0]]
    assert any(not own.all() for own in seen[0][0])
    # Not between the epochs, either: what would have moved them leaves traces.
    (trace,) = [
        x
        for x in jax.tree.leaves(state.opt_state, is_leaf=lambda x: isinstance(x, dict))
        if isinstance(x, dict)
    ]
    for own, kept in zip(site_filters(run.task.net), seen[0][0], strict=True):
        assert not np.any(np.asarray(alive(trace, own))[~kept])


@pytest.mark.parametrize("name", METHODS)
def test_what_is_left_computes_what_was_trained(undisturbed, name):
    run, state, _ = undisturbed[name]
    net = run.task.net
    found, variables, _ = METHODS[name]().finish(run, net.channels, state)
    images = np.random.default_rng(0).random((8, *net.image_shape), np.float32)
    whole = net.module(net.channels).apply(state.variables, images)
    small = found.module(found.channels).apply(variables, images)
    np.testing.assert_allclose(small, whole, atol=1e-5 * np.std(whole))
    assert 0.99 * run.budget <= found.macs(found.channels) <= run.budget  # of few channels


@pytest.mark.parametrize("name", METHODS)
def test_two_devices_find_what_one_does(undisturbed, name):
    _, expected, seen = undisturbed[name]
    state, again = trained(METHODS[name](), run_of(wider(), devices=2))
    for (kept, _), (other, _) in zip(seen, again, strict=True):
        assert [list(own) for own in kept] == [list(own) for own in other]
    for x, y in zip(jax.tree.leaves(expected.params), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-2)


@pytest.mark.parametrize("name", METHODS)
def test_stopped_and_resumed_it_ends_as_if_it_never_was(undisturbed, name, tmp_path):
    _, expected, _ = undisturbed[name]
    steps = -(-len(DIGITS.train.labels) // 128)
    with pytest.raises(StoppedError):
        trained(METHODS[name](), run_of(wider()), tmp_path, steps + 2)
    state, seen = trained(METHODS[name](), run_of(wider()), tmp_path)
    assert len(seen) < EPOCHS + 1
    jax.tree.map(np.testing.assert_array_equal, state.variables, expected.variables)


RUN = {
    "method": "sfp",
    "network": "resnet8_cifar",
    "width_multiplier": 1.0,
    "flops_budget": 20_000.0,
    "reallocate.min_channels": 2,
    "prune.width_multiplier": 0.25,
    "final.train.epochs": 2,
    "final.seeds": 2,
    "furs.every_epochs": 0,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "w"
    return folder, search(small_config(**RUN), folder, quiet=True)


def test_a_run_tells_of_the_small_network_and_leaves_it_to_be_used(finished):
    folder, result = finished
    searched = result["searched"]
    found = furs_jax.load(folder)
    assert list(found.channels) == searched["channels"] != [4, 4, 8, 8, 16, 16]
    assert found.net.macs(found.channels) == searched["macs"]
    assert 0.999 * 20_000 <= searched["macs"] <= 20_000 == result["budget"]
    params = sum(x.size for x in jax.tree.leaves(found.variables["params"]))
    assert searched["params"] == found.net.params(found.channels) == params
    probabilities = found.predict(DIGITS.test.images)
    top1 = np.mean(probabilities.argmax(1) == DIGITS.test.labels)
    assert top1 == pytest.approx(searched["seeds"][0]["top1"])
    # The trained one, of another stem, computes the same.
    whole = furs_jax.load(folder / "checkpoints/final_searched_0")
    assert whole.channels == (4, 4, 8, 8, 16, 16)
    np.testing.assert_allclose(whole.predict(DIGITS.test.images), probabilities, atol=1e-5)
    other = furs_jax.load(folder / "checkpoints/final_searched_1_pruned")
    assert other.net.template.places != found.net.template.places


def test_a_killed_run_ends_with_the_same_small_networks(finished, tmp_path, monkeypatch):
    folder, result = finished
    copy = shutil.copytree(folder, tmp_path / "w")
    (copy / "result.json").unlink()
    lines = (copy / "finals.jsonl").read_text().splitlines(True)
    (copy / "finals.jsonl").write_text("".join(lines[:3]))  # of the second seed none
    shutil.rmtree(changed := copy / "checkpoints/final_searched_1_pruned")
    shutil.copytree(folder / "checkpoints/final_searched_0_pruned", changed)
    timed = {}  # the networks as they were tested
    monkeypatch.setattr(compare, "forward_times", lambda task, nets, size: timed.update(nets))
    again = search(small_config(**RUN, **{"final.timed": True}), copy, quiet=True)
    assert timeless(again) == timeless(result)
    sizes = {name: net.params(net.channels) for name, net in timed.items()}
    assert sizes == {name: result[name]["params"] for name in ("original", "searched")}
    assert (copy / "finals.jsonl").read_text() == "".join(lines)
    found = [furs_jax.load(f / "checkpoints/final_searched_1_pruned") for f in (copy, folder)]
    jax.tree.map(np.testing.assert_array_equal, *(one.variables for one in found))
    # A result that tells of another network.
    wrong = {**read_json(copy / "result.json")["searched"], "channels": [4, 4, 8, 8, 16, 15]}
    write_json(copy / "result.json", {**read_json(copy / "result.json"), "searched": wrong})
    with pytest.raises(DamagedError, match="searched channels is not what the journals tell"):
        search(small_config(**RUN), copy, quiet=True)
    # A line of another method's search.
    (copy / "result.json").unlink()
    (copy / "rounds.jsonl").write_text('{"round": 0}\n')
    with pytest.raises(DamagedError, match="method=sfp writes none"):
        search(small_config(**RUN), copy, quiet=True)


@pytest.mark.parametrize(
    "fields",
    [{"stem": "os.remove"}, {"other": 3}, {"places": [[0]]}, {"stem": 10**6}, {"padding": "max"}],
)
def test_a_record_that_is_no_network_of_the_family_is_refused(fields, finished, tmp_path):
    path = finished[0] / "checkpoints/final_searched_0_pruned"
    net = furs_jax.load(path).net
    state = TrainState(step=1, seed=0, params={}, batch_stats={}, opt_state=())
    record = module_record(net)
    with Checkpoints(tmp_path / "c") as checkpoints:
        step = np.zeros((), np.int32)
        content = {**record, "fields": {**record["fields"], **fields}}
        checkpoints.save(1, state.replace(step=step, seed=step), content)

    def read(path: str) -> None:
        load_network(path, recorded_network(path, net, "path"), "path")

    read(str(path))
    with pytest.raises(FursError, match="of another network|not of this network"):
        read(str(tmp_path / "c"))


def test_it_begins_with_trained_weights_and_a_teacher(tmp_path):
    """FPGM from the unpruned network's weights, which teaches, too: its choice is theirs."""
    given = {
        "mode": "train",
        **{key: RUN[key] for key in ("network", "furs.every_epochs")},
        "width_multiplier": 0.25,
        **(short := {"final.train.epochs": 1, "final.seeds": 1}),
    }
    do(parse(small_config(**given)), str(tmp_path / "unpruned"))
    path = tmp_path / "unpruned/checkpoints/final_trained_0"
    weights = furs_jax.load(path)
    options = {
        **RUN,
        **short,
        "method": "fpgm",
        "init_from": str(path),
        "kd.teacher": str(path),
        "kd.width_multiplier": 0.25,
    }
    search(small_config(**options), tmp_path / "w", quiet=True)
    found, net = furs_jax.load(tmp_path / "w"), weights.net
    (run := run_of(net)).budget = 20_000
    state = types.SimpleNamespace(params=weights.variables["params"])
    removed = GeometricMedian().chosen(run, state)
    assert found.net.template.places == pruned_network(net, removed).template.places


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": (5,)}, "has no use for channels: .*leave channels out"),
        ({"padding": "local"}, "can't be pruned: .*; give padding=max"),
        ({"flops_budget": 1e6}, "less than the budget of 1,000,000; give a larger prune.width"),
        ({"prune.width_multiplier": 8.0}, "can't be met: with 1 channels at every site"),
    ],
)
def test_what_makes_no_sense_is_refused(name, options, message, tmp_path):
    with pytest.raises((ConfigError, BudgetError), match=message):
        search(small_config(**{**RUN, "method": name, **options}), tmp_path / "w", quiet=True)
    assert not (tmp_path / "w").exists()
