"""FLOPs utilisation ratios: what accuracy each site's channels give per MAC.

Chen et al., CVPR 2020, equation 2 and section 3.2: FUR_l = (dAcc / dc_l) / (dFLOPs / dc_l), with
SpatialDropout as the small change in channels. The drop in loss is measured by drawing (method
"dropout", the paper's) or computed to second order (method "fisher").
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from furs_jax import hosts
from furs_jax.errors import ConfigError
from furs_jax.fur_steps import (
    FurStep,
    evaluate_branches,
    evaluate_passes,
    gate_gradients,
    make_dropout_step,
    make_fisher_step,
)
from furs_jax.gates import NOISES
from furs_jax.networks import Network
from furs_jax.reallocate import choose_sites
from furs_jax.resources import marginal_macs, peak_bytes
from furs_jax.step import Batch, Variables, data_parallel, shard

METHODS = ("dropout", "fisher")
FISHER_LABELS = ("empirical", "sampled")
METRICS = ("loss", "accuracy")
MAX_RATE = 0.5
AUTO = "auto"
# Draws of one pass over the images: more are made in several passes, so that memory stays the same.
_DRAWS_PER_PASS = 5
# XLA keeps more alive than the trace's own order would: on CPU up to 1.7 times as much.
_MEMORY_MARGIN = 2
# Groups count as separated when they differ by so many standard errors of the difference.
SURE = 2.0


class Estimator(NamedTuple):
    """How FURs are estimated. configs/default.py (furs) explains the fields."""

    method: str = "dropout"
    metric: str = "loss"
    base_drop_rate: float = 0.05
    draws: int | str = 5
    max_draws: int = 50
    noise: str = "bernoulli"
    variance_reduction: bool = True
    fisher_labels: str = "empirical"
    memory_gib: float = 4.0

    def check(self) -> None:
        """Raises ConfigError where an option can't work."""
        for option, value, known in (
            ("method", self.method, METHODS),
            ("metric", self.metric, METRICS),
            ("noise", self.noise, NOISES),
            ("fisher_labels", self.fisher_labels, FISHER_LABELS),
        ):
            if value not in known:
                raise ConfigError(f"furs.{option}={value!r} must be one of {', '.join(known)}")
        if self.method == "fisher" and self.metric != "loss":
            raise ConfigError("furs.method=fisher knows the loss only; give furs.metric=loss")
        if not 0 < self.base_drop_rate <= MAX_RATE:
            raise ConfigError(
                f"furs.base_drop_rate={self.base_drop_rate:g} must be in (0, {MAX_RATE}]"
            )
        if self.draws != AUTO and (not isinstance(self.draws, int) or self.draws < 1):
            raise ConfigError(f"furs.draws={self.draws!r} must be at least 1, or {AUTO}")
        if self.max_draws < 1:
            raise ConfigError(f"furs.max_draws={self.max_draws} must be at least 1")
        if not self.memory_gib > 0:
            raise ConfigError(f"furs.memory_gib={self.memory_gib:g} must be above 0")

    @property
    def passes(self) -> tuple[int, int]:
        """Draws of one pass over the images, and the most passes."""
        if self.method == "fisher":
            return 0, 1
        draws = self.max_draws if self.draws == AUTO else self.draws
        once = max(n for n in range(1, _DRAWS_PER_PASS + 1) if draws % n == 0)
        return once, draws // once


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
    spread: float  # standard errors between the best and the worst site, see `separation`


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


def estimate_furs(
    net: Network,
    channels: Sequence[int],
    variables: Variables,
    batches: Iterable[Batch],
    *,
    num_layers: int = 1,
    seed: int = 0,
    **options: Any,
) -> FURs:
    """The FUR of every site of a trained network.

    Args:
      net: the network.
      channels: its vector, length L.
      variables: {"params", "batch_stats"}.
      batches: of equal shape, each a dict of image (N, H, W, C), label int32 (N,), index int32
        (N,) naming the image, and weight float32 (N,), 0 for images that only fill up a batch:
        see `furs_jax.data.evaluation_batches`. N must be a multiple of the number of devices. On
        several hosts, this host's part.
        Read once for every 5 draws, so give a list or the like for more.
      num_layers: sites of the top and of the bottom group, which draws="auto" tells apart.
      seed: of the draws. An image's draws depend on this and on its index alone.
      **options: keyword arguments of `make_estimate`.

    Raises:
      ConfigError: an option can't work, there are fewer than two images, or one image needs more
        than memory_gib.
    """
    return make_estimate(net, channels, **options)(variables, batches, num_layers, seed)


def make_estimate(
    net: Network,
    channels: Sequence[int],
    *,
    fan_out: bool = True,
    preprocess: Callable[[jax.Array], jax.Array] = lambda images: images,
    dtype: np.dtype | str = "float32",
    devices: Sequence[jax.Device] | None = None,
    **options: Any,
) -> Callable[[Variables, Iterable[Batch], int, int], FURs]:
    """`estimate_furs` of one network, compiled once: (variables, batches, num_layers, seed).

    Args:
      net, channels: as of `estimate_furs`.
      fan_out: see `make_dropout_step`.
      preprocess: images to what the network takes.
      dtype: of the computation.
      devices: by default all.
      **options: the fields of `Estimator`.

    Raises:
      ConfigError: an option can't work.
    """
    estimator = Estimator(**options)
    estimator.check()
    devices, channels = devices or jax.devices(), tuple(int(c) for c in channels)
    local = len(devices) // hosts.count()
    marginal = marginal_macs(net.macs, channels)
    rates = drop_rates(channels, marginal, estimator.base_drop_rate)
    removed = rates * np.asarray(channels) * marginal
    module = net.module(channels, dtype=dtype)

    def apply(variables, images, gates):
        return module.apply(variables, preprocess(images), gates)

    fan_out = fan_out and net.fans_out
    step = data_parallel(_make_step(apply, channels, estimator, fan_out), devices)
    limits: dict[Any, int] = {}

    def at_once(variables: Variables, batch: Batch) -> int:
        image = jax.ShapeDtypeStruct((1, *batch["image"].shape[1:]), batch["image"].dtype)
        if image not in limits:
            needed = bytes_per_image(apply, variables, image, channels, estimator, fan_out)
            limits[image] = local * _images_within(estimator.memory_gib, needed)
        return limits[image]

    def estimate(variables, batches, num_layers, seed) -> FURs:
        key, (once, most) = jax.random.key(seed), estimator.passes
        total, made = 0.0, 0
        while made < most:
            inputs = (variables, rates.astype(np.float32), jax.random.fold_in(key, made))
            parts = _parts(batches, functools.partial(at_once, variables), local)
            base, rise = _measure(step, inputs, (shard(part, len(devices)) for part in parts))
            total, made = total + rise, made + 1
            ratios = total[METRICS.index(estimator.metric)] / made / removed[:, None]
            if estimator.draws == AUTO and separation(ratios, num_layers) > SURE:
                break
        return _summary(base, total / made, ratios, rates, once * made)

    return estimate


def _make_step(
    apply: Callable, channels: Sequence[int], estimator: Estimator, fan_out: bool
) -> FurStep:
    if estimator.method == "fisher":
        return make_fisher_step(apply, channels, estimator.fisher_labels)
    once, _ = estimator.passes
    return make_dropout_step(
        apply, channels, once, estimator.noise, fan_out, estimator.variance_reduction
    )


def bytes_per_image(
    apply: Callable,
    variables: Variables,
    image: jax.ShapeDtypeStruct,
    channels: Sequence[int],
    estimator: Estimator,
    fan_out: bool = True,
) -> int:
    """Bytes of activations that one image's FURs keep alive at once, see `peak_bytes`."""

    def gradients(image: jax.Array) -> Any:
        return gate_gradients(apply, variables, image, channels, lambda _: jnp.zeros(1, jnp.int32))

    def dropped(image: jax.Array, gates: Sequence[jax.Array]) -> Any:
        evaluate = evaluate_branches if fan_out else evaluate_passes
        return evaluate(apply, variables, image, gates)

    once, _ = estimator.passes
    needed = 0
    if once:
        gates = [jax.ShapeDtypeStruct((once, 1, 1, 1, c), jnp.float32) for c in channels]
        needed += peak_bytes(dropped, image, gates)
    if not once or estimator.variance_reduction:  # both may be alive at the same time
        needed += peak_bytes(gradients, image)
    return _MEMORY_MARGIN * needed


def _images_within(memory_gib: float, needed: int) -> int:
    count = int(memory_gib * 2**30 / needed)
    if count < 1:
        raise ConfigError(
            f"furs.memory_gib={memory_gib:g} is less than the {needed / 2**30:.3g} GiB that one "
            "image takes; give more, or measure with fewer draws or furs.method=fisher"
        )
    return count


def _parts(
    batches: Iterable[Batch], at_once: Callable[[Batch], int], devices: int
) -> Iterator[Batch]:
    """The batches, cut evenly so that each part fits into memory; all parts have one shape."""
    for batch in batches:
        count = len(batch["label"])
        most = at_once(batch)
        size = devices * math.ceil(count / math.ceil(count / most) / devices)
        for start in range(0, count, size):
            place = np.arange(start, start + size)
            part = {key: value[np.minimum(place, count - 1)] for key, value in batch.items()}
            yield part | {"weight": part["weight"] * (place < count)}


def _measure(
    step: Callable, inputs: tuple, batches: Iterable[Batch]
) -> tuple[np.ndarray, np.ndarray]:
    """base (2, N) and rise (M, L, N) of all images of weight one, float64."""
    found = []
    for batch in batches:
        kept = hosts.gathered(batch["weight"].ravel()) > 0
        part = step(inputs, batch)
        found.append([np.asarray(x, np.float64)[..., kept] for x in part])
    if sum(base.shape[-1] for base, _ in found) < 2:
        raise ConfigError("FURs need at least two images to measure on")
    base, rise = (np.concatenate(parts, axis=-1) for parts in zip(*found, strict=True))
    return base, rise


def separation(ratios: np.ndarray, num_layers: int) -> float:
    """How surely every site of the top group is above every one of the bottom group.

    The smallest difference of two sites' means, one of each group, in its own standard errors,
    which come from the differences of the two sites on the same images.

    Args:
      ratios: FURs of single images, shape (L, N).
      num_layers: sites of each group, see `choose_sites`. Where it is 0, infinity is returned.
    """
    furs = ratios.mean(axis=1)
    top, bottom = map(list, choose_sites(furs, num_layers))
    if not top:
        return math.inf
    covariance = np.cov(ratios) / ratios.shape[1]
    variance = np.diag(covariance)
    squared = variance[top][:, None] + variance[bottom][None] - 2 * covariance[top][:, bottom]
    difference = furs[top][:, None] - furs[bottom][None]
    tiny = np.finfo(float).tiny  # sites that never differ are 0 standard errors apart
    return float(np.min(difference / np.sqrt(np.maximum(squared, tiny))))


def _summary(
    base: np.ndarray, rise: np.ndarray, ratios: np.ndarray, rates: np.ndarray, draws: int
) -> FURs:
    def mean_and_stderr(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return values.mean(axis=-1), values.std(axis=-1, ddof=1) / np.sqrt(values.shape[-1])

    mean, stderr = mean_and_stderr(rise)
    if len(mean) < len(METRICS):  # errors are not known
        mean, stderr = (np.vstack([x, np.full_like(x, np.nan)]) for x in (mean, stderr))
    loss, errors = base.mean(axis=-1)
    return FURs(
        *mean_and_stderr(ratios),
        loss_increase=mean[0],
        loss_increase_stderr=stderr[0],
        accuracy_drop=mean[1],
        accuracy_drop_stderr=stderr[1],
        drop_rates=rates,
        loss=float(loss),
        accuracy=float(1 - errors),
        draws=draws,
        spread=separation(ratios, 1),
    )
