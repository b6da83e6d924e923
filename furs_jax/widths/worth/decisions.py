"""A search by the surface: which vector to train next, when to stop, what to answer.

Each step is a pure function of the trainings so far and a seed, so that a search goes on where it
stopped.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from furs_jax.widths.worth.spaces import Channels, Space
from furs_jax.widths.worth.surface import Noise, Surface, fit

_RADIUS = 0.6  # log widths: 0.55 and 1.8 times as wide
_SHARES = (0.6, 1.5)  # of the budget: the first vectors' costs
_CANDIDATES = 120  # draws whose best vectors may be trained next
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(9)


class Rules(NamedTuple):
    """How a search goes.

    Attributes:
      first: mirrored vectors that are trained before any other but the reference; they tell the
        slopes.
      most: trainings at most.
      least: gain that counts, in units of one training's noise. Where knowing the surface would
        gain no more, no other training pays; a vector that gains no more isn't worth leaving the
        reference for. Below zero, it never stops before `most`, and any gain counts.
      draws: from the posterior.
    """

    first: int = 2
    most: int = 16
    least: float = 0.1
    draws: int = 500


RULES = Rules()


class Answer(NamedTuple):
    """What a search says. Gains are over the reference, in the scores' units.

    Attributes:
      channels: the vector; the reference itself where none is expected to be worth leaving it.
      gain, low, high: its expected gain and the interval that holds it with 95 %.
      open: what knowing the surface would gain in expectation.
      noise: one training's standard deviation.
      share, share_low, share_high: which share of the slopes' variance, beside the cost's, the
        direction explains; with its interval.
      wider, narrower: sites where it is surely (95 %) right to spend more, or less.
    """

    channels: Channels
    gain: float
    low: float
    high: float
    open: float
    noise: float
    share: float
    share_low: float
    share_high: float
    wider: tuple[int, ...]
    narrower: tuple[int, ...]

    @property
    def sure(self) -> bool:
        """Whether the interval excludes that nothing is gained."""
        return self.low > 0


def posterior(
    space: Space,
    tried: Sequence[Channels],
    scores: Sequence[float],
    noise: Noise,
    seed: int,
    direction: np.ndarray | None = None,
    draws: int = 500,
) -> Surface:
    """The surface after these trainings; see `fit`."""
    rng = np.random.default_rng((seed, 0, len(tried)))
    return fit(space.offsets(tried), scores, space.elasticities, noise, rng, direction, draws)


def mirrored(
    space: Space, count: int, seed: int, shares: tuple[float, float] = _SHARES
) -> list[Channels]:
    """Vectors with all sites wider or narrower than the reference's, each followed by its mirror.

    Their costs are within these shares of the budget.

    What a pair's sites share in sign, its mirror has with the other one, so that curvatures don't
    pass for slopes.
    """
    vectors = []
    for pair in range((count + 1) // 2):
        rng = np.random.default_rng((seed, 1, pair))
        signs = rng.choice((-1, 1), len(space.reference))
        for sign in (1, -1):
            share = np.exp(rng.uniform(*np.log(shares)))
            vectors.append(space.near(sign * _RADIUS * signs, share))
    return vectors[:count]


class _Candidates(NamedTuple):
    vectors: list[Channels]
    gains: np.ndarray  # (D, C), by each draw

    @property
    def open(self) -> float:
        """What it would gain, in expectation, to know the surface."""
        return float(np.mean(np.max(self.gains, axis=1)) - np.max(np.mean(self.gains, axis=0)))


def _candidates(space: Space, surface: Surface, seed: int) -> _Candidates:
    """Vectors that may be the best within the budget: some draws' best, and the reference."""
    rng = np.random.default_rng((seed, 2))
    chosen = rng.choice(len(surface.worth), min(_CANDIDATES, len(surface.worth)), replace=False)
    worths = [np.mean(surface.worth, axis=0), *surface.worth[chosen]]
    vectors = [space.reference, *map(space.nearly_best, worths)]
    vectors = list(dict.fromkeys(vectors))
    return _Candidates(vectors, surface.gains(space.offsets(vectors)))


def most_telling(surface: Surface, candidates: _Candidates) -> Channels:
    """The candidate after whose training the best one is expected to be best.

    The knowledge gradient (Frazier, Powell & Dayanik, 2009), of a posterior as normal as its
    covariances say.
    """
    gains = candidates.gains
    seen = gains + surface.level[:, None]
    mean = np.mean(gains, axis=0)
    centred = seen - np.mean(seen, axis=0)
    covariance = (gains - mean).T @ centred / len(gains)  # of gain c and score z
    deviation = np.sqrt(np.mean(centred**2, axis=0) + np.mean(surface.noise**2))
    moves = covariance / deviation
    after = np.max(mean[:, None, None] + moves[..., None] * _NODES, axis=0) @ _WEIGHTS
    return candidates.vectors[int(np.argmax(after))]


class Decision(NamedTuple):
    """What is known after some trainings, and what to train next: nothing where none pays."""

    answer: Answer
    following: tuple[Channels, ...]


def decide(
    space: Space,
    tried: Sequence[Channels],
    scores: Sequence[float],
    noise: Noise,
    seed: int,
    rules: Rules = RULES,
    direction: np.ndarray | None = None,
    count: int = 1,
) -> Decision:
    """What these trainings tell.

    Args:
      tried: the vectors, in order; the reference may be among them.
      scores: of one training each; higher is better.
      noise: what is believed of it.
      seed: keys all draws.
      direction: see `fit`.
      count: of vectors to train at once, at most.
    """
    surface = posterior(space, tried, scores, noise, seed, direction, rules.draws)
    candidates = _candidates(space, surface, seed)
    following = _following(space, tried, surface, candidates, seed, rules)
    following = following[: max(min(count, rules.most - len(tried)), 0)]
    return Decision(_answer(space, surface, candidates.open, rules), tuple(following))


def _following(space, tried, surface, candidates, seed, rules) -> list[Channels]:
    """What may be trained next, the most telling first, then what some draws take for the best.

    Such draws are as many bets on what is true (Thompson's sampling): together they tell more than
    the second and third of a ranking, which resemble the first.
    """
    mirrors = mirrored(space, rules.first, seed)
    begun = len(tried) - (list(tried[:1]) == [space.reference])
    if begun < rules.first:
        return mirrors[begun:]
    if candidates.open <= rules.least * np.mean(surface.noise):
        return []
    return list(dict.fromkeys([most_telling(surface, candidates), *candidates.vectors[2:]]))


def _answer(space: Space, surface: Surface, left: float, rules: Rules) -> Answer:
    """The vector of the highest expected gain, and what is known of it."""
    channels = space.best(np.mean(surface.worth, axis=0))
    gains = surface.gains(space.offsets([channels]))[:, 0]
    if np.mean(gains) <= rules.least * np.mean(surface.noise):
        channels, gains = space.reference, np.zeros(len(gains))
    slopes = surface.worth[:, : len(channels)]
    # A share more of the cost spent at one site, against the same at all.
    ahead = slopes / space.elasticities - (
        np.sum(slopes, axis=1, keepdims=True) / np.sum(space.elasticities)
    )
    wider, narrower = np.quantile(ahead, 0.025, axis=0) > 0, np.quantile(ahead, 0.975, axis=0) < 0
    return Answer(
        channels,
        *_with_interval(gains),
        left,
        float(np.mean(surface.noise)),
        *_with_interval(surface.share),
        tuple(np.flatnonzero(wider).tolist()),
        tuple(np.flatnonzero(narrower).tolist()),
    )


def _with_interval(draws: np.ndarray) -> tuple[float, float, float]:
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(np.mean(draws)), float(low), float(high)
