"""The brute-force utilisation ratios: their formula, the score of new channels, a resumed run."""

import dataclasses
import json
import types

import chex
import jax
import numpy as np
import pytest

from furs_jax.bench import predictors, retrain, screening, truth
from furs_jax.costs.macs import Macs
from furs_jax.data import load_dataset
from furs_jax.errors import ConfigError, WorkdirError
from furs_jax.furs.measure import Reread
from furs_jax.jobs.vectors import initial_network
from furs_jax.networks.families.plain import Plain
from furs_jax.networks.network import Network
from furs_jax.options.parse import parse
from furs_jax.training.trainer import make_trainer
from furs_jax.widths.reallocate import reallocate
from tests.small_runs import small_config
from tests.training.test_step import RECIPE, random_split, random_task

SMALL = {"train.epochs": 1, "final.seeds": 2, "furs.images": 60}


def test_the_truth_is_the_fall_of_the_loss_per_mac(tiny):
    """A loss that falls in proportion to given ratios gives those ratios back."""
    macs = np.array(tiny.channels) * Macs(tiny).marginals(tiny.channels)
    ratios = np.linspace(1e-7, 3e-7, len(macs))
    records = [
        {"channels": list(channels), "seed": seed, "search_top1": float(widths @ macs),
         "search_loss": 0.5 + 0.1 * seed - float(widths @ (macs * ratios))}
        for seed in (0, 1)
        for channels in (screening.changed(tiny.channels, s) for s in screening.design(len(macs)))
        for widths in [np.log(channels) - np.log(tiny.channels)]
    ]  # fmt: skip
    found = truth.truth(tiny, records)
    np.testing.assert_allclose(found["furs"], ratios, rtol=1e-6)
    np.testing.assert_allclose(found["by_seed"], [ratios] * 2, rtol=1e-6)
    np.testing.assert_allclose(found["top1"]["slopes"], macs, rtol=1e-6)
    assert found["p_even"] < 1e-6


def test_one_site_has_none_to_be_compared_with():
    net = Network("chain", Plain((8,), 4, 10, stages=1), (8, 8, 1))
    run = types.SimpleNamespace(task=types.SimpleNamespace(net=net))
    with pytest.raises(ConfigError, match="chain has one site only"):
        truth._measure(run)


def test_the_gain_of_new_channels_leaves_out_what_fills_up_a_batch(tiny):
    task, split = random_task(tiny, 1), random_split(45)
    trainer = make_trainer(task, tiny.channels, RECIPE, split)
    variables = trainer.init(0).variables
    padded, whole = (
        predictors.gain(task, trainer, variables, Reread(split, size), 3) for size in (30, 45)
    )
    np.testing.assert_allclose(padded, whole, rtol=1e-3)
    assert np.all(whole > 0)
    assert len(whole) == len(Macs(tiny).marginals(tiny.channels))


def test_statistics_anew_are_those_of_the_batches_alone(tiny):
    """Whatever they were, a layer's input then has the mean and the variance that it has."""
    task, split = random_task(tiny, 1), random_split(48)
    recipe = dataclasses.replace(RECIPE, crop_margin=0, flip=False, batch_size=48)
    trainer = make_trainer(task, tiny.channels, recipe, split)
    variables = trainer.init(0).variables
    other = {**variables, "batch_stats": jax.tree.map(lambda x: x + 3, variables["batch_stats"])}
    found, again = (predictors._statistics_anew(trainer, v, 0) for v in (variables, other))
    chex.assert_trees_all_close(found["batch_stats"], again["batch_stats"], rtol=1e-3, atol=1e-5)
    module, images = tiny.module(tiny.channels), task.preprocess(split.images)
    expected, _ = module.apply(variables, images, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(module.apply(found, images), expected, rtol=1e-3, atol=1e-4)


def test_given_weights_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="leave out init_from"):
        truth.bench(parse(small_config(init_from="somewhere")), tmp_path)


def test_a_run_goes_on_and_its_folder_is_its_own(tmp_path, monkeypatch, capsys):
    few = np.array([[1] * 6, [-1] * 6])
    monkeypatch.setattr(screening, "design", lambda sites: few)
    monkeypatch.setattr(predictors, "RATES", (0.2,))
    trained = []
    train = retrain.train

    def counted(trainer, seed, *arguments):
        trained.append(trainer.channels)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train(trainer, seed, *arguments)

    for module in (predictors, retrain):
        monkeypatch.setattr(module, "train", counted)
    # FURs of a search may rank by accuracy: the benchmark names what it measures itself.
    config = small_config(channels=(6, 6, 8, 8, 12, 12), **{**SMALL, "furs.metric": "accuracy"})
    with pytest.raises(KeyboardInterrupt):
        truth.bench(parse(config), tmp_path)
    truth.bench(parse(config), tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    start = result["channels"]
    assert start[0] > 4  # of the given vector's proportions, at the original's budget
    assert start[5] < 16
    assert trained[0] == screening.changed(start, few[0])
    cost, budget = initial_network(config, load_dataset("digits"))
    net = cost.net
    for of in result["estimators"].values():
        for furs, following in zip(of["furs"], of["next_channels"], strict=True):
            assert following == list(
                reallocate(
                    net, start, furs, initial=net.channels, budget=budget,
                    num_layers=2, step=0.5, step_decay=config.reallocate.step_decay,
                )
            )  # fmt: skip
    # Two networks and seeds, the second training anew; then two seeds with and without dropout.
    assert len(trained) == 2 * 2 + 1 + 2 * 2
    output = capsys.readouterr().out
    assert "gain of new channels, trained without dropout" in output
    assert "search loss of 2 networks, 2 seeds each" in output
    truth.bench(parse(config), tmp_path)  # from result.json
    assert len(trained) == 9
    with pytest.raises(WorkdirError, match="config.train.epochs"):
        truth.bench(
            parse(small_config(channels=(6, 6, 8, 8, 12, 12), **{**SMALL, "train.epochs": 2})),
            tmp_path,
        )
