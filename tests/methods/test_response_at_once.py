"""Which trainings of a search by whole vectors one program does, and that they are the same."""

import dataclasses

import numpy as np
import pytest

from furs_jax.errors import ConfigError
from furs_jax.jobs.prepare import prepare
from furs_jax.machine.programs import CompileClock
from furs_jax.machine.stop import Stop
from furs_jax.methods import _whole_vectors, response
from furs_jax.options.parse import parse
from furs_jax.run.console import Console
from furs_jax.run.context import Run
from tests.small_runs import small_config


@pytest.fixture(scope="module")
def prepared():
    return prepare(parse(small_config(method="response")))


def run_of(prepared, **changes):
    options = parse(small_config(method="response", **changes))
    return Run(options, *prepared[1:], None, Console(True), CompileClock(), Stop())


def scored(run, channels):
    return {"channels": list(channels), "score": float(np.log(np.sum(channels)))}


def test_the_first_vectors_are_those_that_any_scores_lead_to(prepared):
    run = run_of(prepared)
    first = _whole_vectors.first_vectors(run.options, run)
    assert len(first) == 1 + 2
    assert first[0] == run.start
    records = [{**scored(run, run.start), "utilisation": {"furs": [1, 2, 3, 4, 5, 6]}}]
    for vector in first[1:]:
        records[-1].update(_whole_vectors.told(run, records))
        assert tuple(records[-1]["following"]) == vector
        records.append(scored(run, vector))
    few = run_of(prepared, **{"response.max_trainings": 2})
    assert _whole_vectors.first_vectors(few.options, few) == first[:2]


@pytest.mark.parametrize(
    ("at_once", "done", "together"),
    [
        (2, 0, [(0, 1)]),  # the third alone
        (2, 1, [(0, 1)]),
        (2, 2, []),
        (9, 0, [(0, 1, 2)]),
        (9, 2, [(0, 1, 2)]),
        (1, 0, []),
        ("auto", 0, []),  # on CPU
    ],
)
def test_they_are_trained_together_by_the_option(prepared, monkeypatch, at_once, done, together):
    trained = []

    def train_at_once(run, trainer, phases, title, seeds):
        trained.append((trainer, phases, seeds))

    monkeypatch.setattr(response, "make_stacked_trainer", lambda task, vectors, *_: vectors)
    monkeypatch.setattr(response, "train_at_once", train_at_once)
    run = run_of(prepared, **{"response.at_once": at_once})
    response._train_at_once(run, done)
    first = _whole_vectors.first_vectors(run.options, run)
    assert trained == [
        (
            [first[i] for i in own],
            [f"round_0{i}" for i in own],
            [(_whole_vectors.SEED, i) for i in own],
        )
        for own in together
    ]


def test_networks_that_can_t_be_stacked_are_refused_before_anything_is_trained(
    prepared, monkeypatch
):
    def refuse(self):
        raise ConfigError("several widths can't be trained at once")

    monkeypatch.setattr(response.Stack, "check", refuse)
    options = parse(small_config(method="response"))
    for at_once in ("auto", 1, 2):
        own = dataclasses.replace(options.response, at_once=at_once)
        given = dataclasses.replace(options, response=own)
        if at_once == 2:
            with pytest.raises(ConfigError, match="at once"):
                response.Response().check(given, prepared)
        else:
            response.Response().check(given, prepared)
