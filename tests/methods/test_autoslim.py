"""AutoSlim's runs: of a small module, and of ResNets of which nothing is trained."""

import json
import shutil
import types

import jax
import numpy as np
import pytest

from furs_jax.data.batches import evaluation_batches
from furs_jax.errors import ConfigError, DamagedError
from furs_jax.jobs.prepare import prepare
from furs_jax.jobs.search import search
from furs_jax.methods.autoslim import AutoSlim
from furs_jax.objectives import image_losses
from furs_jax.options.parse import parse
from furs_jax.training.loading import load_network
from furs_jax.training.slimmable import whole_batches
from furs_jax.widths.slimming import slim
from tests.small_runs import content, small_config

SMALL = {
    "method": "tests.methods.test_autoslim:Quick",
    "network": "tests.own_network:Fork",
    "width_multiplier": 1.0,
    "prune.expand": 2.0,
    "train.epochs": 2,
    "final.train.epochs": 1,
    "final.seeds": 1,
    "reallocate.min_channels": 2,
    "reallocate.channel_multiple": 2,
}


class Quick(AutoSlim):
    groups = 4


def run_of(options):
    return types.SimpleNamespace(**prepare(parse(small_config(**options)))._asdict())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("autoslim") / "w"
    return search(small_config(**SMALL), folder, quiet=True), folder


def lines(folder):
    return [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]


def test_a_run_slims_as_networks_without_the_channels_say(finished):
    """Against a loop over channels that are taken out of the trained variables."""
    result, folder = finished
    trained, slimmed = lines(folder)
    run = run_of(SMALL)
    net, task = run.task.net, run.task
    assert trained["channels"] == [12, 8, 16, 24]  # twice as wide
    _, variables = load_network(str(folder / "checkpoints" / "slimmable"), net, "here")
    split = whole_batches(task.dataset.search, 512, task.eval_batch_size)
    batches = list(evaluation_batches(split, task.eval_batch_size))
    wide = net.module((12, 8, 16, 24))

    @jax.jit
    def losses_of(masks, images, labels):
        logits, _ = wide.apply(variables, images, masks, train=True, mutable=["batch_stats"])
        return image_losses(logits, labels).mean()

    def loss(vector):
        masks = [
            np.array([0.0] * (c - v) + [1.0] * v, np.float32).reshape(1, 1, 1, c)
            for c, v in zip((12, 8, 16, 24), vector, strict=True)
        ]
        return np.mean([losses_of(masks, task.preprocess(b["image"]), b["label"]) for b in batches])

    vector, steps = [12, 8, 16, 24], ([12, 8, 6, 4], [8, 6, 4, 2], [16, 12, 8, 4], [24, 18, 12, 6])
    removed, found = [], []
    while net.macs(vector) > net.macs(net.channels):
        best = None
        for site, ladder in enumerate(steps):
            smaller = [width for width in ladder if width < vector[site]]
            if smaller:
                candidate = [*vector[:site], smaller[0], *vector[site + 1 :]]
                if best is None or loss(candidate) < best[0]:
                    best = loss(candidate), site, candidate
        found.append(best[0])
        removed.append(best[1])
        vector = best[2]
    assert slimmed["removed"] == removed
    assert slimmed["losses"] == pytest.approx(found, rel=1e-4)
    assert slimmed["reached"] == vector
    assert result["searched"]["channels"] == slimmed["channels"]
    assert result["searched"]["macs"] <= result["budget"]
    split = task.dataset.train
    steps = 2 * (len(split.labels) // 64)
    # A masked pass costs a full one; in this network none is cut.
    assert result["search_macs"] == 4 * 3 * net.macs((12, 8, 16, 24)) * 64 * steps


@pytest.mark.parametrize("kept", [1, 0])
def test_a_killed_run_ends_as_one_that_was_not(finished, tmp_path, kept):
    _, folder = finished
    again = tmp_path / "w"
    shutil.copytree(folder, again)
    text = (folder / "rounds.jsonl").read_text().splitlines(True)
    (again / "rounds.jsonl").write_text("".join(text[:kept]))
    for name in ("result.json", "finals.jsonl"):
        (again / name).unlink()
    shutil.rmtree(again / "checkpoints" / "final_searched_0")
    metrics = (again / "metrics.jsonl").read_text().splitlines(True)
    (again / "metrics.jsonl").write_text("".join(m for m in metrics if "searched" not in m))
    search(small_config(**SMALL), again, quiet=True)
    assert content(again) == content(folder)


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        (0, {"channels": [12, 8, 16, 22]}),
        (0, {"train_macs": 5}),
        (1, {"removed": lambda removed: removed[:-1]}),
        (1, {"removed": lambda removed: [*removed, removed[-1]]}),
        (1, {"losses": lambda losses: losses[:-1]}),
        (1, {"channels": [6, 4, 8, 10]}),
    ],
)
def test_a_line_that_does_not_follow_is_damaged(finished, line, changes):
    records = lines(finished[1])
    run = run_of(SMALL)
    for name, change in changes.items():
        records[line][name] = change(records[line][name]) if callable(change) else change

    def damaged(number, reason):
        return DamagedError(f"line {number}: {reason}")

    rounds = types.SimpleNamespace(read=lambda: records, damaged=damaged)
    run.workdir = types.SimpleNamespace(rounds=rounds)
    with pytest.raises(DamagedError, match=f"line {line + 1}"):
        Quick().check_journal(run)


@pytest.mark.parametrize("budget", [1.0, 0.8, 0.5])
@pytest.mark.parametrize("network", ["resnet14_cifar", "plain14_cifar"])
def test_the_budget_is_met_from_below(network, budget):
    """Whatever the losses say."""
    size = {"network": network, "width_multiplier": 1.0}
    whole = run_of({**SMALL, **size, "prune.expand": None}).task.net
    macs = budget * whole.macs(whole.channels)
    given = {**SMALL, "network": network, "flops_budget": macs, "prune.expand": None}
    run = run_of({**given, "reallocate.channel_multiple": 1})
    method, rng = AutoSlim(), np.random.default_rng(0)
    assert method.largest(run.options, run.unpruned) == tuple(int(1.5 * c) for c in whole.channels)
    steps = method.ladders(run.options, run.unpruned)
    path = slim(steps, lambda v: list(rng.random(len(v))), lambda c: run.cost.of(c) <= run.budget)
    found = method._slimmed(run, path.removed)
    assert 0 <= (macs - found["macs"]) / macs <= 0.001
    assert found["macs"] == run.task.net.macs(found["channels"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": (12,)}, "no use for channels: .* leave channels out"),
        ({"channels_from": "x"}, "no use for channels_from"),
        ({"init_from": "x"}, "no use for init_from"),
        ({"prune.expand": 1.0}, "must lie between: change prune.width_multiplier or prune.expand"),
        ({"prune.width_multiplier": 30.0}, "must lie between"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        prepare(parse(small_config(**{**SMALL, **changes})))
