"""What a search by trainings of whole vectors concludes from its lines: scores, what is next."""

import math
from collections.abc import Sequence

import numpy as np

from furs_jax.methods import Channels, Record
from furs_jax.options.schema import Options
from furs_jax.run.context import Prepared, Run, derived_seed
from furs_jax.widths.worth.decisions import Decision, Rules, decide, mirrored
from furs_jax.widths.worth.surface import Noise
from furs_jax.widths.worth.whole import Whole

SEED = 7  # of `derived_seed`
# Of the logarithm of the loss. Measured on Fashion-MNIST at 14x14 (plain-14, ResNet-14, ResNet-8),
# 4 to 10 seeds each: 0.035 to 0.038 after one epoch, 0.018 to 0.035 after three.
_NOISE = Noise(0.035, 0.4)


def score(record: Record) -> float:
    return -math.log(max(record["search_loss"], 1e-12))


def first_vectors(options: Options, given: Prepared | Run) -> list[Channels]:
    """The vectors that are trained whatever others score."""
    others = mirrored(space_of(options, given), _rules(options).first, _seed(options))
    return [given.start, *others][: options.response.max_trainings]


def told(run: Run, records: Sequence[Record]) -> Record:
    """What is known after these trainings, and what to train next."""
    decision = _decision(run, records)
    answer = decision.answer._asdict()
    return {
        "found": list(answer.pop("channels")),
        **{name: list(v) if isinstance(v, tuple) else v for name, v in answer.items()},
        "following": list(decision.following[0]) if decision.following else [],
    }


def space_of(options: Options, given: Prepared | Run, centre: np.ndarray | None = None) -> Whole:
    """The vectors that may be tried."""
    bounds = given.bounds._asdict()
    return Whole(given.task.net, given.budget, given.start, given.cost, **bounds, centre=centre)


def _rules(options: Options) -> Rules:
    return Rules(most=options.response.max_trainings, least=options.response.least_gain)


def _seed(options: Options) -> int:
    return derived_seed(options.seed, SEED, 0)


def _decision(run: Run, records: Sequence[Record]) -> Decision:
    options, tried = run.options, [tuple(record["channels"]) for record in records]
    found = records[-2]["found"] if len(records) > 1 else run.start
    # What was found may lie far beyond all that was trained, where nothing is known.
    centre = np.clip(found, np.min(tried, axis=0), np.max(tried, axis=0))
    space = space_of(options, run, centre)
    # A FUR is of one more unit of the cost, a slope of so many shares of the width.
    direction = np.array(records[0]["utilisation"]["furs"]) * space.elasticities
    return decide(
        space,
        tried,
        [record["score"] for record in records],
        _NOISE,
        _seed(options),
        _rules(options),
        direction,
    )
