"""Trainings at once against one after the other: what is timed, and how it is added up."""

import json

import pytest

from furs_jax.bench import at_once
from furs_jax.options.parse import parse
from tests.small_runs import small_config


def test_images_of_all_networks_are_counted_both_ways(monkeypatch, tmp_path, capsys):
    timed = []

    def train_rate(trainer, batches, seconds, seed):
        timed.append((trainer.vectors, next(batches)["image"].shape, seed))
        return 2.0 if trainer.vectors else float(len(timed))

    monkeypatch.setattr(at_once, "train_rate", train_rate)
    monkeypatch.setattr(at_once, "by_device", lambda task: None)
    monkeypatch.setattr(at_once, "_TURNS", 1)
    options = parse(small_config(method="response"))
    rate = at_once.bench(options, str(tmp_path))
    size = options.train.batch_size
    assert rate.networks == 3
    assert rate.at_once == 2 * 3 * size
    # Each step of the three, of 2 to 4 a second, has a batch of one network.
    assert rate.alone == pytest.approx(3 * size / (1 / 2 + 1 / 3 + 1 / 4))
    (vectors, shape, seeds), *others = timed
    assert len(set(vectors)) == len(vectors) == 3
    assert seeds == (0, 1, 2)
    assert shape[0] * shape[1] == size
    assert shape[2] == 3
    assert [vectors for vectors, _, _ in others] == [()] * 3
    assert json.loads((tmp_path / "bench_at_once.json").read_text())["networks"] == 3
    assert "3 networks at once" in capsys.readouterr().out
