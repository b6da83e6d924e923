"""How surely sites differ, and whether more draws would tell."""

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from furs_jax.furs.ratios import FURs
from furs_jax.options.schema import METRICS
from furs_jax.widths.sites import choose_sites

# How often sites that are equal may be called different.
_FALSE_ALARMS = 0.05


class Sums(NamedTuple):
    """What is known after some passes over the same N images, each weighted by its draws."""

    weight: int = 0
    passes: int = 0
    rises: np.ndarray | float = 0.0  # shape (M, L, N)
    ratios: np.ndarray | float = 0.0  # shape (L, N)
    products: np.ndarray | float = 0.0  # of every two sites' ratios, over images, shape (L, L)
    first: np.ndarray | None = None  # standard errors of the first pass's FURs, shape (L,)

    def plus(self, rise: np.ndarray, ratios: np.ndarray, draws: int) -> "Sums":
        """With another pass, which made so many draws."""
        return Sums(
            self.weight + draws,
            self.passes + 1,
            self.rises + draws * rise,
            self.ratios + draws * ratios,
            self.products + draws * ratios @ ratios.T,
            _mean_and_stderr(ratios)[1] if self.first is None else self.first,
        )

    def drawn(self) -> np.ndarray | None:
        """Covariance (L, L) of a mean over images that drawing makes, here a single draw for each.

        Estimated by how passes differ on the same image; None after a single pass. Passes share
        strata out between them, so that many draws make a little less of it than so many times
        less.
        """
        if self.passes < 2:
            return None
        within = self.products - self.ratios @ self.ratios.T / self.weight
        return within / (self.passes - 1) / self.ratios.shape[1] ** 2


def _mean_and_stderr(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values.mean(axis=-1), values.std(axis=-1, ddof=1) / np.sqrt(values.shape[-1])


def _standardised(ratios: np.ndarray) -> np.ndarray:
    """Differences of the means of every two sites, each in its own standard error, shape (L, L).

    The error comes from the differences of the two sites on the same images: what the sites have in
    common does not blur them.

    Args:
      ratios: FURs of single images, shape (L, N).
    """
    furs = ratios.mean(axis=1)
    covariance = np.atleast_2d(np.cov(ratios)) / ratios.shape[1]
    sums = np.add.outer(np.diag(covariance), np.diag(covariance))
    # Sites that are the same image by image differ by nothing but rounding.
    rounding = 1e-14 * sums + np.finfo(float).tiny
    squared = np.maximum(sums - 2 * covariance, rounding)
    return np.subtract.outer(furs, furs) / np.sqrt(squared)


@functools.lru_cache
def sure(sites: int, images: int) -> float:
    """Standard errors from which on two of so many sites are different, whichever they are.

    Of many equal sites, the two that happen to lie farthest apart are far apart. So all pairs are
    tested at once, by the studentised range as of Tukey and Kramer: equal sites are called
    different in at most 5 % of cases, whatever their errors and correlations, where means are
    normal. Where few images make most of the error it is more: about 8 and 11 to 13 % with 15 and 5
    draws, as resampled twice from 288 digits.
    """
    quantile = stats.studentized_range.isf(_FALSE_ALARMS, max(sites, 2), images - 1)
    return float(quantile / math.sqrt(2))  # the range's unit is the error of one mean


def spread(ratios: np.ndarray) -> float:
    """The most standard errors between any two sites; 0 for a single site. See `sure`.

    Args:
      ratios: FURs of single images, shape (L, N).
    """
    return float(np.max(_standardised(ratios)))


def separation(ratios: np.ndarray, num_layers: int) -> float:
    """How surely every site of the top group is above every one of the bottom group.

    The smallest difference of two sites' means, one of each group, in its own standard errors.

    Args:
      ratios: FURs of single images, shape (L, N).
      num_layers: sites of each group, see `choose_sites`. Where it is 0, infinity is returned.
    """
    closest = _closest(ratios, num_layers)
    return float(_standardised(ratios)[closest]) if closest else math.inf


def _closest(ratios: np.ndarray, num_layers: int) -> tuple[int, int] | None:
    """The site of the top group and that of the bottom group that are told apart worst."""
    top, bottom = choose_sites(ratios.mean(axis=1), num_layers)
    apart = _standardised(ratios)
    return min(itertools.product(top, bottom), key=lambda pair: apart[pair], default=None)


def decided(found: Sums, num_layers: int, most_draws: int) -> bool:
    """Whether the groups are told apart, or can't be even by all the draws that may be made."""
    ratios = found.ratios / found.weight
    needed = sure(*ratios.shape)
    if separation(ratios, num_layers) > needed:
        return True
    drawn = found.drawn()
    if drawn is None:  # what part of the error is the draws' is not known
        return False
    top, bottom = _closest(ratios, num_layers)
    drawn = max(drawn[top, top] + drawn[bottom, bottom] - 2 * drawn[top, bottom], 0.0)
    return reachable(ratios[top] - ratios[bottom], drawn, found.weight, most_draws) < needed


def reachable(difference: np.ndarray, drawn: float, draws: int, most_draws: int) -> float:
    """The standard errors that `most_draws` would show two sites apart, with some luck.

    An image's error stays however often it is drawn for; the draws' own shrinks with them, and may
    move the difference by two standard errors on the way.

    Args:
      difference: of the sites' FURs on single images, shape (N,).
      drawn: the part of its mean's variance that a single draw for each image makes.
      draws: made so far.
      most_draws: that may be made.
    """
    mean, error = _mean_and_stderr(difference)
    of_images = max(error**2 - drawn / draws, 0.0)
    luck = 2 * math.sqrt(drawn * (1 / draws - 1 / most_draws))
    least = math.sqrt(of_images + drawn / most_draws)
    return float((mean + luck) / max(least, np.finfo(float).tiny))


def what_draws_bought(furs: FURs, max_draws: int) -> str | None:
    """Of draws="auto" that ended without telling the groups apart; None where they are apart."""
    needed = sure(len(furs.furs), furs.images)
    if not furs.draws or not furs.separation <= needed:
        return None
    ended = "more would not tell" if furs.draws < max_draws else "all of them don't tell"
    bought = ""
    if not math.isnan(furs.drawn_share):
        bought = (
            f"; those after the first pass narrowed standard errors by {1 - furs.narrowed:.0%}, "
            f"and of the variance left {furs.drawn_share:.0%} is the draws', the rest the images'"
        )
    return (
        f"{furs.draws} of at most {max_draws} draws: {ended} the sites to widen from those to "
        f"narrow, {furs.separation:.1f} standard errors apart where {needed:.1f} are needed{bought}"
    )


def summary(base: np.ndarray, found: Sums, rates: np.ndarray, draws: int, num_layers: int) -> FURs:
    mean, stderr = _mean_and_stderr(found.rises / found.weight)
    if len(mean) < len(METRICS):  # errors are not known
        mean, stderr = (np.vstack([x, np.full_like(x, np.nan)]) for x in (mean, stderr))
    loss, errors = base.mean(axis=-1)
    ratios, drawn = found.ratios / found.weight, found.drawn()
    furs, furs_stderr = _mean_and_stderr(ratios)
    tiny, share, separated = np.finfo(float).tiny, np.nan, separation(ratios, num_layers)
    if drawn is not None:
        share = np.median(np.diag(drawn) / found.weight / np.maximum(furs_stderr**2, tiny))
    return FURs(
        furs=furs,
        furs_stderr=furs_stderr,
        loss_increase=mean[0],
        loss_increase_stderr=stderr[0],
        accuracy_drop=mean[1],
        accuracy_drop_stderr=stderr[1],
        drop_rates=rates,
        loss=float(loss),
        accuracy=float(1 - errors),
        draws=draws,
        spread=spread(ratios),
        separation=separated if math.isfinite(separated) else np.nan,
        images=ratios.shape[1],
        drawn_share=float(np.clip(share, 0.0, 1.0)),
        narrowed=float(np.median(furs_stderr) / max(np.median(found.first), tiny)),
        apart=_standardised(ratios),
    )
