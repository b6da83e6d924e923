"""Accuracy as a function of widths: a quadratic, additive in their logarithms, and what is known.

    score(c) = a + sum_l (b_l x_l - q_l x_l^2) + seed's noise,    x_l = log(c_l / reference_l)

with q_l >= 0: more channels pay less and less. On CIFAR-10's table of 16,384 retrained networks
(Channel-Bench-Macro, Su et al.) such a surface explains nearly all that seeds don't.

What is believed before the first training: the slopes are those of a network whose widths are
right, proportional to what sites cost, and deviate from them, partly in a direction that is given
(what FURs say; by default, equal slopes), partly each on its own:

    b = s e + spread (sqrt(share) u + sqrt(1 - share) deviations)

with e the cost's elasticities and u the direction; curvatures are believed to follow e, too, as
they do where errors fall by a power of the width. How large the deviations are, which share of
their variance the direction explains, the curvatures' size and the noise are not set: the
posterior is a sum over a grid of them, each weighted by its marginal likelihood.
"""

import itertools
from typing import NamedTuple

import numpy as np
from scipy.special import log_ndtr, ndtri_exp

# Standard deviations, in units of one training's noise. Common level and slope: wide.
_LEVEL, _SLOPE = 30.0, 10.0
_SPREADS = (0.03, 0.15, 0.3, 0.6, 1.2, 2.4)
_CURVATURES = (0.03, 0.1, 0.3, 1.0)
# Shares that a direction may explain, and what is believed of them. Of equal slopes little is
# expected: a network's widths are mostly there because somebody found them to be about right.
_EQUAL = {0.0: 0.75, 0.5: 0.25}
_GIVEN = {0.0: 0.2, 0.2: 0.2, 0.4: 0.2, 0.6: 0.2, 0.8: 0.1, 0.95: 0.1}
_NOISES = np.exp(np.linspace(-2, 2, 17))  # in units of what is expected
_SWEEPS = 12  # of Gibbs' sampler over curvatures, which hardly depend on each other


class Noise(NamedTuple):
    """What is believed of one training's standard deviation: log-normal."""

    median: float
    log_deviation: float = 0.3

    @classmethod
    def of_accuracy(cls, accuracy: float, images: int) -> "Noise":
        """Of an accuracy (a share) on so many images.

        Seeds flip images independently, more or less, those that are hard (Jordan, arXiv
        2304.01910), which makes somewhat less than so many tosses of one coin.
        """
        return cls(0.6 * float(np.sqrt(max(accuracy * (1 - accuracy), 1 / images) / images)))


class Surface(NamedTuple):
    """Draws from the posterior; D of them, of L sites.

    Attributes:
      level: a, shape (D,): the score of the reference.
      worth: b and q, shape (D, 2L): see `features`.
      noise: one training's standard deviation, (D,).
      share: which share of the slopes' deviations the direction explains, (D,).
    """

    level: np.ndarray
    worth: np.ndarray
    noise: np.ndarray
    share: np.ndarray

    def gains(self, offsets: np.ndarray) -> np.ndarray:
        """Score above the reference's, (D, N), of vectors with log widths (N, L) above its."""
        return self.worth @ features(offsets).T


def features(offsets: np.ndarray) -> np.ndarray:
    """What b and q are multiplied by, (N, 2L), from log widths above the reference's, (N, L)."""
    return np.concatenate([offsets, -np.square(offsets)], axis=-1)


def fit(
    offsets: np.ndarray,
    scores: np.ndarray,
    elasticities: np.ndarray,
    noise: Noise,
    rng: np.random.Generator,
    direction: np.ndarray | None = None,
    draws: int = 500,
) -> Surface:
    """The posterior after some trainings.

    Args:
      offsets: log widths above the reference's, shape (N, L); N may be 0 and below L.
      scores: of one training each, (N,); higher is better.
      elasticities: d log cost / d log width of each site at the reference, (L,).
      noise: what is believed of it.
      rng: draws are keyed by it.
      direction: (L,), where slopes are believed to deviate to; by default equal slopes. Its
        length means nothing, and nor does what of it is along the elasticities.
      draws: their number.
    """
    offsets = np.reshape(np.asarray(offsets, float), (-1, len(elasticities)))
    scores = np.asarray(scores, float)
    centre = np.mean(scores) if len(scores) else 0.0
    design = np.column_stack([np.ones(len(offsets)), features(offsets)])  # (N, P), P = 1 + 2L
    beliefs = _beliefs(elasticities, direction)
    evidence, noises, known = _explained(beliefs, design, scores - centre, noise)
    belief, size = _resampled(evidence, draws, rng)
    size = noises[size]
    kept, place = np.unique(belief, return_inverse=True)
    across = known.across[kept]
    covariances = beliefs.covariances[kept] - across @ np.linalg.solve(
        known.among[kept], np.swapaxes(across, 1, 2)
    )
    moved = across @ known.weighted[kept]  # (K, P, 2): by scores, and by what the prior expected
    centres = beliefs.means[belief] + moved[place, :, 0] / size[:, None] - moved[place, :, 1]
    values = _drawn(centres, covariances, place, rng) * size[:, None]
    return Surface(values[:, 0] + centre, values[:, 1:], size, beliefs.shares[belief])


class _Beliefs(NamedTuple):
    """Normal priors of (a, b, q) in units of noise, G of them: one for each point of the grid."""

    means: np.ndarray  # (G, P)
    covariances: np.ndarray  # (G, P, P)
    shares: np.ndarray  # (G,)
    log_weights: np.ndarray  # (G,)


class _Known(NamedTuple):
    """What scores say under each belief, in units of noise."""

    across: np.ndarray  # (G, P, N): covariances of (a, b, q) and scores
    among: np.ndarray  # (G, N, N): covariances of scores
    weighted: np.ndarray  # (G, N, 2): of scores, in their own units, and of their prior means


def _beliefs(elasticities: np.ndarray, direction: np.ndarray | None) -> _Beliefs:
    common, sites = _unit(elasticities), len(elasticities)
    off = _beside(common, np.ones(sites) if direction is None else direction)
    known = (_EQUAL if direction is None else _GIVEN) if np.any(off) else {0.0: 1.0}
    curved = common / np.mean(common)
    slopes, curvatures = slice(1, sites + 1), slice(sites + 1, None)
    grid = list(itertools.product(_SPREADS, _CURVATURES, known.items()))
    means = np.zeros((len(grid), 1 + 2 * sites))
    covariances = np.zeros((len(grid), 1 + 2 * sites, 1 + 2 * sites))
    for mean, covariance, (spread, curvature, (share, _)) in zip(
        means, covariances, grid, strict=True
    ):
        mean[slopes] = spread * np.sqrt(share) * off
        mean[curvatures] = curvature * curved
        covariance[0, 0] = _LEVEL**2
        own = spread**2 * (1 - share) * np.eye(sites)
        covariance[slopes, slopes] = _SLOPE**2 * np.outer(common, common) + own
        covariance[curvatures, curvatures] = np.diag((curvature * curved) ** 2)
    shares, weights = np.array([point[2] for point in grid]).T
    return _Beliefs(means, covariances, shares, np.log(weights))


def _explained(
    beliefs: _Beliefs, design: np.ndarray, scores: np.ndarray, noise: Noise
) -> tuple[np.ndarray, np.ndarray, _Known]:
    """Log evidence of each belief and noise, (G, S), the noises, (S,), and what is known then.

    That curvatures are not below zero is left out here; draws know it.
    """
    across = beliefs.covariances @ design.T
    among = design @ across + np.eye(len(scores))
    expected = beliefs.means @ design.T  # (G, N)
    sides = np.stack(np.broadcast_arrays(scores, expected), axis=-1)
    weighted = np.linalg.solve(among, sides)
    squares = np.einsum("gni,gnj->gij", sides, weighted)
    noises = noise.median * _NOISES
    misfit = (
        squares[:, 0, 0, None] / noises**2
        - 2 * squares[:, 0, 1, None] / noises
        + squares[:, 1, 1, None]
    )
    size = np.linalg.slogdet(among)[1][:, None] / 2 + len(scores) * np.log(noises)
    prior = beliefs.log_weights[:, None] - (np.log(_NOISES) / noise.log_deviation) ** 2 / 2
    return prior - misfit / 2 - size, noises, _Known(across, among, weighted)


def _unit(vector: np.ndarray) -> np.ndarray:
    """Of root mean square 1, or zeros."""
    vector = np.asarray(vector, float)
    size = np.sqrt(np.mean(vector**2))
    return vector / size if size > 0 else vector


def _beside(common: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """The direction without what is along the common one, of root mean square 1, or zeros."""
    direction = _unit(direction)
    rest = direction - common * np.mean(direction * common)
    return _unit(rest) if np.max(np.abs(rest)) > 1e-9 else np.zeros(len(common))


def _resampled(evidence: np.ndarray, draws: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """Places in a table of log weights, as often as they weigh: systematic resampling."""
    weights = np.exp(evidence - np.max(evidence)).ravel()
    ladder = (rng.random() + np.arange(draws)) / draws
    places = np.searchsorted(np.cumsum(weights) / np.sum(weights), ladder)
    return np.unravel_index(np.minimum(places, weights.size - 1), evidence.shape)


def _drawn(centres: np.ndarray, covariances: np.ndarray, place: np.ndarray, rng) -> np.ndarray:
    """(a, b, q), (D, P), from normal distributions cut off where a curvature is below zero.

    First curvatures, by Gibbs' sampler from their own distribution, then the others given them.

    Args:
      centres: (D, P).
      covariances: (K, P, P); place: (D,), which of them is a draw's.
    """
    split = centres.shape[1] // 2 + 1
    alone = covariances[:, split:, split:]
    precision = np.linalg.inv(alone)[place]
    middle = centres[:, split:]
    curvature = np.maximum(middle, 0.0)
    for _ in range(_SWEEPS):
        for site in range(middle.shape[1]):
            own = precision[:, site, site]
            pull = np.sum(precision[:, site] * (curvature - middle), axis=1)
            mean = curvature[:, site] - pull / own
            curvature[:, site] = _above_zero(mean, 1 / np.sqrt(own), rng)
    shared = covariances[:, split:, :split]
    slope = np.linalg.solve(alone, shared)
    rest = covariances[:, :split, :split] - np.swapaxes(shared, 1, 2) @ slope
    moved = np.einsum("dl,dlk->dk", curvature - middle, slope[place])
    noise = np.linalg.cholesky(rest)[place] @ rng.standard_normal((len(place), split, 1))
    return np.concatenate([centres[:, :split] + moved + noise[..., 0], curvature], axis=1)


def _above_zero(mean: np.ndarray, deviation: np.ndarray, rng) -> np.ndarray:
    """Normal numbers, given that they are above zero; right in the tails, too."""
    log_share = np.log(1 - rng.random(mean.shape)) + log_ndtr(mean / deviation)
    return np.maximum(mean - deviation * ndtri_exp(log_share), 0.0)
