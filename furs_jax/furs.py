"""FLOPs utilisation ratios: what accuracy each site's channels give per MAC.

Chen et al., CVPR 2020, equation 2 and section 3.2: FUR_l = (dAcc / dc_l) / (dFLOPs / dc_l), with
SpatialDropout as the small change in channels. The drop in loss is measured by drawing (method
"dropout", the paper's) or computed to second order (method "fisher").
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from furs_jax.errors import ConfigError
from furs_jax.gates import NOISES
from furs_jax.networks import Network
from furs_jax.resources import marginal_macs
from furs_jax.step import (
    Batch,
    FurSums,
    Variables,
    data_parallel,
    make_dropout_step,
    make_fisher_step,
    shard,
)

METHODS = ("dropout", "fisher")
FISHER_LABELS = ("empirical", "sampled")
METRICS = ("loss", "accuracy")
MAX_RATE = 0.5


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


def check_options(
    method: str,
    metric: str,
    base_drop_rate: float,
    draws: int,
    noise: str,
    fisher_labels: str = "empirical",
) -> None:
    """Raises ConfigError where an option of the estimator can't work."""
    for option, value, known in (
        ("method", method, METHODS),
        ("metric", metric, METRICS),
        ("noise", noise, NOISES),
        ("fisher_labels", fisher_labels, FISHER_LABELS),
    ):
        if value not in known:
            raise ConfigError(f"furs.{option}={value!r} must be one of {', '.join(known)}")
    if method == "fisher" and metric != "loss":
        raise ConfigError("furs.method=fisher knows the loss only; give furs.metric=loss")
    if not 0 < base_drop_rate <= MAX_RATE:
        raise ConfigError(f"furs.base_drop_rate={base_drop_rate:g} must be in (0, {MAX_RATE}]")
    if draws < 1:
        raise ConfigError(f"furs.draws={draws} must be at least 1")


def estimate_furs(
    net: Network,
    channels: Sequence[int],
    variables: Variables,
    batches: Iterable[Batch],
    *,
    method: str = "dropout",
    metric: str = "loss",
    base_drop_rate: float = 0.05,
    draws: int = 5,
    noise: str = "bernoulli",
    fisher_labels: str = "empirical",
    fan_out: bool = True,
    seed: int = 0,
    preprocess: Callable[[jax.Array], jax.Array] = lambda images: images,
    dtype: np.dtype | str = "float32",
    devices: Sequence[jax.Device] | None = None,
) -> FURs:
    """The FUR of every site of a trained network.

    Args:
      net: the network.
      channels: its vector, length L.
      variables: {"params", "batch_stats"}.
      batches: of equal shape, each a dict of image (N, H, W, C), label int32 (N,), index int32
        (N,) naming the image, and weight float32 (N,), 0 for images that only fill up a batch:
        see `furs_jax.data.evaluation_batches`. N must be a multiple of the number of devices.
      method: "dropout" or "fisher".
      metric: what the FURs are of, "loss" or "accuracy"; both are always recorded.
      base_drop_rate: p0.
      draws: R, gates drawn for each image and site ("dropout").
      noise: "bernoulli" or "gaussian" ("dropout").
      fisher_labels: "empirical" or "sampled" ("fisher"), see `make_fisher_step`.
      fan_out: see `make_dropout_step`.
      seed: of the draws. An image's draws depend on this and on its index alone.
      preprocess: images to what the network takes.
      dtype: of the computation.
      devices: by default all.

    Raises:
      ConfigError: an option can't work, or there are fewer than two images.
    """
    check_options(method, metric, base_drop_rate, draws, noise, fisher_labels)
    devices = devices or jax.devices()
    marginal = marginal_macs(net.macs, channels)
    rates = drop_rates(channels, marginal, base_drop_rate)
    module = net.module(channels, dtype=dtype)

    def apply(variables, images, gates):
        return module.apply(variables, preprocess(images), gates)

    widths = tuple(channels)
    if method == "fisher":
        step = make_fisher_step(apply, widths, fisher_labels)
    else:
        step = make_dropout_step(apply, widths, draws, noise, fan_out and net.fans_out)
    step = data_parallel(step, devices)
    replicated = (variables, rates.astype(np.float32), jax.random.key(seed))
    sums = _total(step(replicated, shard(batch, len(devices))) for batch in batches)
    return _furs(sums, rates, rates * np.asarray(channels) * marginal, metric)


def _total(parts: Iterable[FurSums]) -> FurSums:
    # In double precision, on the host.
    total = None
    for part in parts:
        part = jax.tree.map(lambda x: np.asarray(x, np.float64), part)
        total = part if total is None else jax.tree.map(np.add, total, part)
    if total is None or total.count < 2:
        raise ConfigError("FURs need at least two images to measure on")
    return total


def _furs(sums: FurSums, rates: np.ndarray, macs_removed: np.ndarray, metric: str) -> FURs:
    count = sums.count
    mean = sums.rise / count
    variance = np.maximum(sums.rise_squared - count * mean**2, 0.0) / (count - 1)
    stderr = np.sqrt(variance / count)
    if len(mean) < len(METRICS):  # errors are not known
        mean, stderr = (np.vstack([x, np.full_like(x, np.nan)]) for x in (mean, stderr))
    chosen = METRICS.index(metric)
    loss, errors = sums.base / count
    return FURs(
        furs=mean[chosen] / macs_removed,
        furs_stderr=stderr[chosen] / macs_removed,
        loss_increase=mean[0],
        loss_increase_stderr=stderr[0],
        accuracy_drop=mean[1],
        accuracy_drop_stderr=stderr[1],
        drop_rates=rates,
        loss=float(loss),
        accuracy=float(1 - errors),
    )
