"""What every site's width is worth, from trainings that change all of them at once.

A screening design: each training has about half of the sites wider and half narrower, in patterns
that are orthogonal to each other, so every training tells something of every site. The effects'
standard errors are sqrt(L) times smaller than those of as many trainings that change one of the L
sites each. Every pattern is trained mirrored, too, which keeps the interactions of two sites out
of the effects. (Plackett and Burman, Biometrika 1946; Box and Hunter, Technometrics 1961.)
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg
from scipy import stats

FACTOR = 1.4  # that widths are multiplied with, or divided by


class Effects(NamedTuple):
    """A linear model of a figure in the logarithms of L widths."""

    slopes: np.ndarray  # change for a width e times as large, shape (L,)
    covariance: np.ndarray  # of the slopes, shape (L, L)
    freedom: int  # of the residuals

    def stderr(self) -> np.ndarray:
        """Of the slopes, shape (L,)."""
        return np.sqrt(np.diag(self.covariance))


def design(sites: int) -> np.ndarray:
    """Signs, 1 wider and -1 narrower, shape (trainings, sites).

    Twice the next power of two above the number of sites; columns are balanced and orthogonal.
    """
    order = 1 << (sites - 1).bit_length()
    half = scipy.linalg.hadamard(order)[:, order - sites :]
    return np.stack([half, -half], axis=1).reshape(2 * order, sites)


def changed(channels: Sequence[int], signs: Sequence[int], multiple: int = 1) -> tuple[int, ...]:
    """The vector with every site wider or narrower by `FACTOR`, at least by one unit.

    A unit is `multiple` channels. A site of one isn't narrowed.
    """
    units = [c // multiple for c in channels]
    return tuple(
        multiple
        * (max(round(u * FACTOR), u + 1) if sign > 0 else max(min(round(u / FACTOR), u - 1), 1))
        for u, sign in zip(units, signs, strict=True)
    )


def fit(log_widths: np.ndarray, values: np.ndarray, seeds: Sequence[int]) -> Effects:
    """Least squares; every seed has a mean of its own.

    With several seeds, errors are those between seeds. With one they are the residuals, which hold
    the figure's interactions and curvature, too.

    Args:
      log_widths: relative to the original's, shape (trainings, L).
      values: shape (trainings,).
      seeds: of the trainings.
    """
    means = np.asarray(seeds)[:, None] == np.unique(seeds)
    model = np.concatenate([means, log_widths], axis=1).astype(float)
    inverse = np.linalg.pinv(model)
    coefficients = inverse @ values
    saturated = model
    if means.shape[1] > 1:
        _, pattern = np.unique(log_widths, axis=0, return_inverse=True)
        saturated = np.concatenate([means, pattern.reshape(-1, 1) == np.unique(pattern)], axis=1)
    saturated = saturated.astype(float)
    freedom = len(saturated) - np.linalg.matrix_rank(saturated)
    residuals = values - saturated @ (np.linalg.pinv(saturated) @ values)
    variance = np.sum(residuals**2) / max(freedom, 1)
    own = slice(means.shape[1], None)
    covariance = variance * inverse @ inverse.T
    return Effects(coefficients[own], covariance[own, own], int(freedom))


def chance_of_even(effects: Effects, shares: np.ndarray) -> float:
    """The probability of slopes as uneven per MAC as these where none is truly worth more.

    An F test of all moves of channels that keep the MACs, as far as trainings tell of them.

    Args:
      effects: of L sites.
      shares: proportional to d MACs / d log width, shape (L,).
    """
    moves = scipy.linalg.null_space(shares[None]).T  # (L - 1, L)
    found = moves @ effects.slopes
    spread = moves @ effects.covariance @ moves.T
    told = max(int(np.linalg.matrix_rank(spread, hermitian=True)), 1)
    statistic = found @ np.linalg.pinv(spread, hermitian=True) @ found / told
    return float(stats.f.sf(statistic, told, effects.freedom))


def predicted(effects: Effects, log_widths: np.ndarray) -> tuple[float, float]:
    """The model's difference of a vector from the original, and half its 95 % interval."""
    error = np.sqrt(log_widths @ effects.covariance @ log_widths)
    return float(log_widths @ effects.slopes), float(stats.t.ppf(0.975, effects.freedom) * error)
