"""The brute-force utilisation ratios: their formula, the score of new channels, a resumed run."""

import numpy as np
import pytest

from furs_jax.bench import retrain, truth
from furs_jax.errors import ConfigError, WorkdirError
from furs_jax.measure import Reread
from furs_jax.resources import marginal_macs
from furs_jax.train import make_trainer
from tests.test_search import small_config
from tests.test_step import RECIPE, random_split, random_task

SMALL = {"train.epochs": 1, "final.seeds": 2, "furs.images": 60}


def test_a_site_is_changed_by_a_quarter_and_never_gone():
    assert truth.changed((8, 16, 2, 1), 1, 1) == (8, 20, 2, 1)
    assert truth.changed((8, 16, 2, 1), 1, -1) == (8, 12, 2, 1)
    assert truth.changed((8, 16, 2, 1), 2, -1) == (8, 16, 1, 1)
    assert truth.changed((8, 16, 2, 1), 3, -1) == (8, 16, 2, 1)


def test_the_truth_is_the_fall_of_the_loss_per_mac():
    records = [
        {"site": site, "sign": sign, "seed": seed, "macs": 1000 + 100 * sign * (site + 1),
         "search_loss": 0.5 - sign * (0.01 * (site + 1) + 0.1 * seed)}
        for site in (0, 1) for sign in (1, -1) for seed in (0, 1)
    ]  # fmt: skip
    expected = [[0.02 / 200, 0.04 / 400], [0.22 / 200, 0.24 / 400]]
    np.testing.assert_allclose(truth.truth(records, 2), expected)


def test_the_gain_of_new_channels_leaves_out_what_fills_up_a_batch(tiny):
    task, split = random_task(tiny, 1), random_split(45)
    trainer = make_trainer(task, tiny.channels, RECIPE, split)
    variables = trainer.init(0).variables
    padded, whole = (
        truth.gain(task, trainer, variables, Reread(split, size), 3) for size in (30, 45)
    )
    np.testing.assert_allclose(padded, whole, rtol=1e-3)
    assert np.all(whole > 0)
    assert len(whole) == len(marginal_macs(tiny.macs, tiny.channels))


def test_other_networks_than_the_original_are_refused(tmp_path):
    config = small_config(channels=(8, 8, 8, 8, 8, 8))
    with pytest.raises(ConfigError, match="leave out channels"):
        truth.bench(config, tmp_path)


def test_a_run_goes_on_and_its_folder_is_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(truth, "changes", lambda sites: [(0, 1), (5, -1)])
    monkeypatch.setattr(truth, "RATES", (0.2,))
    trained = []
    train = truth.train

    def counted(trainer, seed, *arguments):
        trained.append(trainer.channels)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train(trainer, seed, *arguments)

    for module in (truth, retrain):
        monkeypatch.setattr(module, "train", counted)
    config = small_config(**SMALL)
    with pytest.raises(KeyboardInterrupt):
        truth.bench(config, tmp_path)
    monkeypatch.setattr(
        truth, "truth", lambda records, sites: np.arange(2.0 * sites).reshape(2, sites)
    )
    truth.bench(config, tmp_path)
    # Two sites and seeds, the second training anew; then two seeds with and without dropout.
    assert len(trained) == 2 * 2 + 1 + 2 * 2
    output = capsys.readouterr().out
    assert "gain of new channels, trained without dropout" in output
    truth.bench(config, tmp_path)  # from result.json
    assert len(trained) == 9
    with pytest.raises(WorkdirError, match="config.train.epochs"):
        truth.bench(small_config(**{**SMALL, "train.epochs": 2}), tmp_path)
