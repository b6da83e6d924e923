"""What MACs are worth beside the noise: the fit, the verdicts, a run that goes on."""

import numpy as np
import pytest
from scipy import stats

from furs_jax.bench import headroom, retrain
from furs_jax.errors import ConfigError
from furs_jax.options.parse import parse
from furs_jax.run.statistics import Interval, difference_interval
from tests.small_runs import small_config


def test_the_fit_finds_the_slope_and_the_noise_within_sizes():
    rng = np.random.default_rng(0)
    macs = np.repeat([0.75e6, 1e6, 1.333e6], 400)
    top1 = 0.9 + 0.02 * np.log2(macs / 1e6) + rng.normal(0, 0.004, len(macs))
    found = headroom.headroom(macs, top1)
    assert abs(found.slope.mean - 0.02) < found.slope.half_width < 0.002
    assert found.noise == pytest.approx(0.004, rel=0.1)
    # What sizes have in common as their own, however far from a line, is not noise.
    bent = headroom.headroom([1, 1, 2, 2, 4, 4], [0.5, 0.5, 0.9, 0.9, 0.6, 0.6])
    assert bent.noise == pytest.approx(0.0, abs=1e-12)


def test_a_visible_difference_is_one_whose_interval_just_leaves_out_zero():
    for seeds in (2, 5, 20):
        values = np.random.default_rng(seeds).normal(size=seeds)
        noise = values.std(ddof=1)
        least = headroom.visible(noise, seeds)
        found = difference_interval(values + least - 0.0, values)
        assert found.mean == pytest.approx(least)
        assert found.half_width == pytest.approx(least)  # Welch's of equal variances
    needed = headroom.seeds_needed(1.0, 0.9)
    assert headroom.visible(1.0, needed) <= 0.9 < headroom.visible(1.0, needed - 1)
    assert headroom.seeds_needed(1.0, 1e-3) is None


@pytest.mark.parametrize(
    ("slope", "noise", "expected"),
    [
        (Interval(0.01, 0.02), 0.003, "MACs make no difference"),
        (Interval(0.02, 0.001), 0.001, "more MACs are worth"),
        (Interval(0.002, 0.001), 0.1, "more than 1,000 seeds"),
    ],
)
def test_the_verdict_follows_slope_and_noise(slope, noise, expected):
    assert expected in headroom.verdict(headroom.Headroom(slope, noise), 5)


def test_the_verdict_in_macs():
    seeds, noise = 5, 0.01
    gain = stats.t.ppf(0.975, 8) * noise * np.sqrt(2 / 5)
    text = headroom.verdict(headroom.Headroom(Interval(gain, 0.0), noise), seeds)
    assert "100% more MACs" in text  # one doubling is just visible


def test_a_run_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    trained = []
    train = retrain.train

    def counted(trainer, seed, *arguments):
        trained.append((trainer.channels, seed))
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train(trainer, seed, *arguments)

    monkeypatch.setattr(retrain, "train", counted)
    monkeypatch.setattr(headroom, "SHARES", (0.75, 1.0))
    small = {"final.train.epochs": 1, "final.seeds": 2, "channels": (6, 8, 8, 8, 8, 8)}
    with pytest.raises(KeyboardInterrupt):
        headroom.bench(parse(small_config(**small)), tmp_path)
    headroom.bench(parse(small_config(**small)), tmp_path)
    assert len(trained) == 2 * 2 + 1
    assert len(set(trained)) == 2 * 2
    assert sum(trained[0][0]) < sum(trained[-1][0])
    assert trained[0][0][0] < trained[0][0][1]  # of the vector that is given
    output = capsys.readouterr().out
    assert "points for a doubling of the MACs" in output
    with pytest.raises(ConfigError, match="final.seeds of at least 2"):
        headroom.bench(parse(small_config(**{**small, "final.seeds": 1})), tmp_path)
    with pytest.raises(ConfigError, match="leave out init_from"):
        headroom.bench(parse(small_config(init_from="x", **small)), tmp_path)
