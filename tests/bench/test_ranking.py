"""How short a training may rank: the parts of its score, the recipes, a run that goes on."""

import types

import numpy as np
import pytest

from furs_jax.bench import ranking, retrain
from furs_jax.errors import ConfigError
from furs_jax.networks.families.plain import Plain
from furs_jax.networks.network import Network
from furs_jax.options.parse import parse
from tests.small_runs import small_config

SMALL = {
    "train.epochs": 4,
    "train.warmup_epochs": 1.0,
    "train.learning_rate": 0.07,
    "final.train.epochs": 2,
    "final.train.learning_rate": 0.11,
    "final.seeds": 2,
}


def _simulated(networks, seeds, noise=0.3, own=0.6, count=0):
    """Scores of short and of long trainings, whose truths correlate with 0.8."""
    rng = np.random.default_rng(count)
    truth = rng.normal(size=(networks, 1))
    short = 2 * (0.8 * truth + own * rng.normal(size=(networks, 1)))
    return (
        short + 2 * noise * rng.normal(size=(networks, seeds)),
        truth + noise * rng.normal(size=(networks, seeds)),
    )


def test_noise_spread_and_what_short_trainings_have_of_their_own_are_told_apart():
    short, long = _simulated(4000, 2)
    found = ranking.agreement(short, long)
    assert found.noise == pytest.approx(0.6, rel=0.05)
    assert found.spread == pytest.approx(2.0, rel=0.05)
    assert found.faithful == pytest.approx(0.8, abs=0.02)
    itself = ranking.agreement(long, long)
    assert itself.faithful == 1
    assert itself.of_mean() == pytest.approx(1 / np.sqrt(1.09), abs=0.01)


def test_a_mean_of_trainings_ranks_as_foretold():
    short, long = _simulated(4000, 8, noise=1.0)
    foretold = ranking.agreement(short[:, :2], long[:, :2])
    truth = np.mean(_simulated(4000, 2000, noise=1.0)[1], axis=1)  # of the same networks
    for trainings in (1, 4, 8):
        mean = np.mean(short[:, :trainings], axis=1)
        seen = np.corrcoef(mean, truth)[0, 1]
        assert foretold.of_mean(trainings) == pytest.approx(seen, abs=0.03)


def test_the_interval_holds_the_correlation():
    held = []
    for count in range(300):
        found = ranking.agreement(*_simulated(16, 2, count=count))
        low, high = ranking.interval(found.of_mean(), 16)
        held.append(low <= 0.8 / np.sqrt(1.09) <= high)
    assert 0.93 <= np.mean(held) < 1


def test_where_noise_explains_all_there_is_no_correlation():
    noise = np.random.default_rng(0).normal(size=(16, 2))
    level = noise - np.mean(noise, axis=1, keepdims=True)
    found = ranking.agreement(level, level)
    assert found.spread == 0
    assert np.isnan(found.of_mean())
    length = {"epochs": 2, "scores": level.tolist(), "top1": noise.tolist()}
    told = {"network": "net", "data": "images", "vectors": [0] * 16, "seeds": 2, "unit": "bytes"}
    table = ranking._table({**told, "lengths": [length, {**length, "epochs": 1}]})
    assert "nan" not in table
    assert "16 networks of the same bytes" in table
    cells = table.splitlines()[2].split()
    assert (len(cells), cells[2]) == (5, "0.000")  # no correlations


def test_what_is_seen_is_of_other_seeds():
    """A truth that is noise alone doesn't agree with itself, and its best isn't better."""
    noise = np.random.default_rng(0).normal(size=(5000, 2))
    spearman, first = ranking.ranks(noise, noise, noise)
    assert abs(spearman) < 0.05
    assert first < 2.5  # the best of 5,000 would be 3.7 above
    even = np.arange(5.0)[:, None] * [1, 1]
    top1 = np.array([[0.1, 0.3], [0.2, 0.2], [0.3, 0.1], [0.4, 0.4], [0.6, 0.8]])
    best, worst = (0.7, 0.2) - np.mean(top1)
    assert ranking.ranks(even, even, top1) == pytest.approx((1, best))
    assert ranking.ranks(-even, even, top1) == pytest.approx((-1, worst))


def test_short_recipes_are_the_searchs():
    options = parse(small_config(**{**SMALL, "final.train.epochs": 9}))
    longest, *short = ranking.recipes(options)
    assert longest == options.final.train
    assert [recipe.epochs for recipe in short] == [4, 2, 1]
    assert [recipe.warmup_epochs for recipe in short] == [1, 0.5, 0.25]
    assert {recipe.learning_rate for recipe in short} == {0.07}


def test_a_run_goes_on_and_trains_each_length_with_seeds_of_its_own(tmp_path, monkeypatch, capsys):
    trained = []
    train = retrain.train

    def counted(trainer, seed):
        trained.append((trainer, seed))
        if len(trained) == 3:
            raise KeyboardInterrupt
        return train(trainer, seed)

    monkeypatch.setattr(retrain, "train", counted)
    monkeypatch.setattr(ranking, "VECTORS", 2)
    with pytest.raises(KeyboardInterrupt):
        ranking.bench(parse(small_config(**SMALL)), tmp_path)
    ranking.bench(parse(small_config(**SMALL)), tmp_path)
    del trained[2]
    assert len(trained) == 2 * 2 * 2
    vectors = {trainer.channels for trainer, _ in trained}
    assert len(vectors) == 2
    net = trained[0][0].task.net
    for channels in vectors:
        assert 0.98 <= net.macs(channels) / net.macs(net.channels) <= 1
        of = [
            (t.recipe.learning_rate, t.recipe.epochs) for t, _ in trained if t.channels == channels
        ]
        assert of == [(0.11, 2)] * 2 + [(0.07, 1)] * 2
        assert len({seed for t, seed in trained if t.channels == channels}) == 4
    assert all(len(t.split.labels) == len(t.task.dataset.train.labels) for t, _ in trained)
    assert "2 networks of the same MACs, 2 seeds" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"final.seeds": 1}, "final.seeds of at least 2"),
        ({"init_from": "x"}, "leave out init_from"),
        ({"final.train.epochs": 1}, "final.train.epochs of at least 2"),
    ],
)
def test_what_cannot_be_ranked_is_said(tmp_path, changes, error):
    with pytest.raises(ConfigError, match=error):
        ranking.bench(parse(small_config(**{**SMALL, **changes})), tmp_path)


def test_one_site_has_none_to_be_ranked_with():
    net = Network("chain", Plain((8,), 4, 10, stages=1), (8, 8, 1))
    run = types.SimpleNamespace(task=types.SimpleNamespace(net=net), options=None)
    with pytest.raises(ConfigError, match="chain has one site only"):
        ranking._measure(run)
