"""FLOPs utilisation ratios and the drop rates that they are measured at, as numbers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from furs_jax.options.schema import MAX_RATE


class FURs(NamedTuple):
    """Estimates for L sites, float64, shape (L,), with standard errors over images."""

    furs: np.ndarray  # drop in the metric per MAC removed
    furs_stderr: np.ndarray
    loss_increase: np.ndarray  # mean cross-entropy with the site dropped, minus without
    loss_increase_stderr: np.ndarray
    accuracy_drop: np.ndarray  # share of the images; NaN where the method doesn't tell
    accuracy_drop_stderr: np.ndarray
    drop_rates: np.ndarray
    loss: float  # of the undropped network on the same images
    accuracy: float
    draws: int  # made for each image and site; 0: none needed
    spread: float  # the most standard errors between any two sites, see `significance.sure`
    separation: float  # the least between a site of the top and one of the bottom group, or NaN
    images: int  # measured on
    drawn_share: float  # of the variance of `furs`: made by the draws; NaN after a single pass
    narrowed: float  # furs_stderr over that of the first pass alone; medians of the sites
    apart: np.ndarray  # shape (L, L): of every two sites' furs, in standard errors of it

    def as_json(self) -> dict[str, Any]:
        """Lists and numbers but `apart`; None where the method doesn't tell."""
        return {
            name: None if np.all(np.isnan(value)) else np.asarray(value).tolist()
            for name, value in self._replace(apart=None)._asdict().items()
            if value is not None
        }


def drop_rates(channels: Sequence[int], marginal: np.ndarray, base_rate: float) -> np.ndarray:
    """Drop rates that remove the same MACs from every site, on average at the base rate.

    p_l = p0 * mean_j(c_j dF_j) / (c_l dF_l), clipped to [0, MAX_RATE]. Chen et al., section 3.2.

    Args:
      channels: widths, length L.
      marginal: dF_l, MACs per channel, shape (L,).
      base_rate: p0.

    Returns:
      float64, shape (L,).
    """
    site_macs = np.asarray(channels) * marginal
    return np.clip(base_rate * site_macs.mean() / site_macs, 0.0, MAX_RATE)
