"""FLOPs utilisation ratios: what accuracy each site's channels give per MAC.

Chen et al., CVPR 2020, equation 2 and section 3.2: FUR_l = (dAcc / dc_l) / (dFLOPs / dc_l), with
SpatialDropout as the small change in channels. The drop in loss is measured by drawing (method
"dropout", the paper's) or computed to second order (method "fisher").
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from furs_jax.data.augment import normalise
from furs_jax.errors import ConfigError
from furs_jax.furs.steps import (
    FurStep,
    evaluate_branches,
    evaluate_passes,
    gate_gradients,
    make_dropout_step,
    make_fisher_step,
)
from furs_jax.machine import hosts
from furs_jax.networks import Network
from furs_jax.networks.resources import marginal_macs, peak_bytes
from furs_jax.options.schema import AUTO, MAX_RATE, METRICS, check_option
from furs_jax.training.step import Batch, Variables, data_parallel, shard
from furs_jax.widths.reallocate import choose_sites

# Draws of one pass over the images: more are made in several passes, so that memory stays the same.
_DRAWS_PER_PASS = 5
# XLA keeps more alive than the trace's own order would: on CPU up to 1.7 times as much.
_MEMORY_MARGIN = 2
# Images without a value below 0 and with some above this are pixels, up to 255.
_BRIGHTEST = 16.0
# How often sites that are equal may be called different.
_FALSE_ALARMS = 0.05


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
        for field, value in self._asdict().items():
            check_option(f"furs.{field}", value)
        if self.method == "fisher" and self.metric != "loss":
            raise ConfigError("furs.method=fisher knows the loss only; give furs.metric=loss")

    @property
    def passes(self) -> tuple[int, int]:
        """Draws of one pass over the images, and the most passes (of the last ones, one less)."""
        if self.method == "fisher":
            return 0, 1
        passes = math.ceil(self.most_draws / _DRAWS_PER_PASS)
        return math.ceil(self.most_draws / passes), passes

    @property
    def most_draws(self) -> int:
        """Gates that are drawn for each image and site, at most."""
        if self.method == "fisher":
            return 0
        return self.max_draws if self.draws == AUTO else self.draws


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
    spread: float  # the most standard errors between any two sites, see `sure`
    separation: float  # the least between a site of the top and one of the bottom group, or NaN
    images: int  # measured on
    drawn_share: float  # of the variance of `furs`: made by the draws; NaN after a single pass
    narrowed: float  # furs_stderr over that of the first pass alone; medians of the sites

    def as_json(self) -> dict[str, Any]:
        """Lists and numbers; None where the method doesn't tell."""
        return {
            name: None if np.all(np.isnan(value)) else np.asarray(value).tolist()
            for name, value in self._asdict().items()
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

        data = load_dataset("digits")
        batches = list(evaluation_batches(data.search, 64))
        estimate_furs(net, channels, variables, batches, mean=data.mean, std=data.std)

    Args:
      net: the network.
      channels: its vector, length L.
      variables: {"params", "batch_stats"}.
      batches: of equal shape, each a dict of image (N, H, W, C), label int32 (N,), index int32
        (N,) naming the image, and weight float32 (N,), 0 for images that only fill up a batch:
        see `furs_jax.data.evaluation_batches`. N must be a multiple of the number of devices. On
        several hosts, this host's part. Images must be what the network was trained on: uint8 with
        `mean` and `std` (or `preprocess`), or float as the network takes them.
        Read once for every 5 draws, so give a list or the like for more.
      num_layers: sites of the top and of the bottom group, which draws="auto" tells apart.
      seed: of the draws. An image's draws depend on this and on its index alone.
      **options: keyword arguments of `make_estimate`.

    Raises:
      ConfigError: an option can't work, the batches don't hold what the network takes, there are
        fewer than two images, one image needs more than memory_gib, or the network's loss is not
        finite.
    """
    return make_estimate(net, channels, **options)(variables, batches, num_layers, seed)


def make_estimate(
    net: Network,
    channels: Sequence[int],
    *,
    fan_out: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    preprocess: Callable[[jax.Array], jax.Array] | None = None,
    dtype: np.dtype | str = "float32",
    devices: Sequence[jax.Device] | None = None,
    **options: Any,
) -> Callable[[Variables, Iterable[Batch], int, int], FURs]:
    """`estimate_furs` of one network, compiled once: (variables, batches, num_layers, seed).

    Args:
      net, channels: as of `estimate_furs`.
      fan_out: see `make_dropout_step`.
      mean, std: of the data set (`furs_jax.data.Dataset`), by which uint8 images are normalised.
      preprocess: in their place, any function from the batches' images to what the network takes.
        Without either, images must be float and are taken as they are.
      dtype: of the computation.
      devices: by default all.
      **options: the fields of `Estimator`.

    Raises:
      ConfigError: an option can't work.
    """
    estimator = Estimator(**options)
    estimator.check()
    _, passes = estimator.passes
    draws = estimator.most_draws
    devices, channels = devices or jax.devices(), tuple(int(c) for c in channels)
    local = len(devices) // hosts.count()
    marginal = marginal_macs(net.macs, channels)
    rates = drop_rates(channels, marginal, estimator.base_drop_rate)
    removed = rates * np.asarray(channels) * marginal
    module = net.module(channels, dtype=dtype)
    prepared = _preprocessing(preprocess, mean, std, net.image_shape)
    check = functools.partial(_check_batch, net, preprocess is not None, mean is not None)

    def apply(variables, images, gates):
        return module.apply(variables, prepared(images), gates)

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
        if passes > 1 and iter(batches) is batches:
            raise ConfigError(
                f"{draws} draws read the batches {passes} times, and these can be read only once; "
                f"give a list of them, or at most {_DRAWS_PER_PASS} draws"
            )
        key = jax.random.fold_in(jax.random.key(seed), 0)
        found = _Sums()
        for number in range(passes):
            inputs = (variables, rates.astype(np.float32), key, np.int32(number))
            parts = _parts(map(check, batches), functools.partial(at_once, variables), local)
            base, rise = _measure(step, inputs, (shard(part, len(devices)) for part in parts))
            ratios = rise[METRICS.index(estimator.metric)] / removed[:, None]
            found = found.plus(rise, ratios, len(range(number, draws, passes)) or 1)
            if estimator.draws == AUTO and _decided(found, num_layers, draws):
                break
        return _summary(base, found, rates, found.weight if draws else 0, num_layers)

    return estimate


def _preprocessing(
    preprocess: Callable | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    image_shape: tuple[int, int, int],
) -> Callable[[jax.Array], jax.Array]:
    if (mean is None) != (std is None) or (preprocess and mean is not None):
        raise ConfigError("give mean and std together, or preprocess in their place")
    if mean is None:
        return preprocess or (lambda images: images)
    if not len(mean) == len(std) == image_shape[-1]:
        raise ConfigError(
            f"mean and std must have a value for each of the images' {image_shape[-1]} channels, "
            f"not {len(mean)} and {len(std)}"
        )
    return lambda images: normalise(images, mean, std)


def _check_batch(net: Network, preprocessed: bool, normalised: bool, batch: Batch) -> Batch:
    """The batch, if its images and labels can be what the network takes."""
    missing = {"image", "label", "index", "weight"} - set(batch)
    if missing:
        raise ConfigError(
            f"batches must hold {', '.join(sorted(missing))}, too: see "
            "furs_jax.data.evaluation_batches"
        )
    images, labels = np.asarray(batch["image"]), np.asarray(batch["label"])
    if images.shape[1:] != net.image_shape:
        raise ConfigError(
            f"the batches' images have the shape {images.shape[1:]}, those of {net.name} "
            f"{net.image_shape}; get the network with image_shape={images.shape[1:]}"
        )
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu" or np.any(labels < 0):
        raise ConfigError("the batches' labels must be whole numbers from 0 on, one for each image")
    if normalised and images.dtype != np.uint8:
        raise ConfigError(
            f"mean and std are for uint8 images, and these are {images.dtype}; leave mean and std "
            "out where images are normalised already"
        )
    if preprocessed or normalised:
        return batch
    if images.dtype.kind != "f" and images.dtype != jnp.bfloat16:
        raise ConfigError(
            f"the batches' images are {images.dtype}, and the network takes normalised ones: give "
            "mean and std of its data set (as of furs_jax.data.load_dataset), or preprocess"
        )
    if np.min(images) >= 0 and np.max(images) > _BRIGHTEST:
        raise ConfigError(
            f"the batches' images go from {np.min(images):g} to {np.max(images):g}, as pixels do "
            "that are not normalised: give uint8 images with mean and std of their data set, or as "
            "preprocess what the network was trained with"
        )
    return batch


def _make_step(
    apply: Callable, channels: Sequence[int], estimator: Estimator, fan_out: bool
) -> FurStep:
    if estimator.method == "fisher":
        return make_fisher_step(apply, channels, estimator.fisher_labels)
    return make_dropout_step(
        apply,
        channels,
        estimator.most_draws,
        estimator.noise,
        fan_out,
        estimator.variance_reduction,
        estimator.passes[1],
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
    if not (np.all(np.isfinite(base)) and np.all(np.isfinite(rise))):
        bad = np.sum(~(np.isfinite(base).all(axis=0) & np.isfinite(rise).all(axis=(0, 1))))
        raise ConfigError(
            f"the loss of {bad} of {base.shape[-1]} images is not finite, so FURs mean nothing: "
            "the weights, the images or their labels are damaged"
        )
    return base, rise


class _Sums(NamedTuple):
    """Of passes over the same N images, each weighted by its draws."""

    weight: int = 0
    passes: int = 0
    rises: np.ndarray | float = 0.0  # shape (M, L, N)
    ratios: np.ndarray | float = 0.0  # shape (L, N)
    products: np.ndarray | float = 0.0  # of every two sites' ratios, over images, shape (L, L)
    first: np.ndarray | None = None  # standard errors of the first pass's FURs, shape (L,)

    def plus(self, rise: np.ndarray, ratios: np.ndarray, draws: int) -> "_Sums":
        """With another pass, which made so many draws."""
        return _Sums(
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


def _decided(found: _Sums, num_layers: int, most_draws: int) -> bool:
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
    return _reachable(ratios[top] - ratios[bottom], drawn, found.weight, most_draws) < needed


def _reachable(difference: np.ndarray, drawn: float, draws: int, most_draws: int) -> float:
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


def _summary(
    base: np.ndarray, found: _Sums, rates: np.ndarray, draws: int, num_layers: int
) -> FURs:
    mean, stderr = _mean_and_stderr(found.rises / found.weight)
    if len(mean) < len(METRICS):  # errors are not known
        mean, stderr = (np.vstack([x, np.full_like(x, np.nan)]) for x in (mean, stderr))
    loss, errors = base.mean(axis=-1)
    ratios, drawn = found.ratios / found.weight, found.drawn()
    furs, furs_stderr = _mean_and_stderr(ratios)
    tiny, share, apart = np.finfo(float).tiny, np.nan, separation(ratios, num_layers)
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
        separation=apart if math.isfinite(apart) else np.nan,
        images=ratios.shape[1],
        drawn_share=float(np.clip(share, 0.0, 1.0)),
        narrowed=float(np.median(furs_stderr) / max(np.median(found.first), tiny)),
    )
