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

from furs_jax.costs import Cost
from furs_jax.costs.macs import Macs
from furs_jax.errors import ConfigError
from furs_jax.furs.images import check_batch, images_within, parts_within, preprocessing
from furs_jax.furs.ratios import FURs, drop_rates
from furs_jax.furs.significance import Sums, decided, summary
from furs_jax.furs.steps import (
    FurStep,
    evaluate_branches,
    evaluate_passes,
    gate_gradients,
    gated_at,
    make_dropout_step,
    make_fisher_step,
)
from furs_jax.gates import Gates
from furs_jax.machine import hosts
from furs_jax.networks.memory import peak_bytes
from furs_jax.networks.network import Network
from furs_jax.objectives import Batch, Variables
from furs_jax.options.schema import AUTO, METRICS, check_option
from furs_jax.training.step import abstract, data_parallel, shard

# Draws of one pass over the images: more are made in several passes, so that memory stays the same.
_DRAWS_PER_PASS = 5
# XLA keeps more alive than the trace's own order would: on CPU 1.1 to 2.35 times as much (ResNets
# up to 1.7, MBConv 2.1, DenseNet 2.35).
_MEMORY_MARGIN = 2.5


class Branches(NamedTuple):
    """Whole residual branches, which are dropped in place of channels.

    Attributes:
      sites: of the blocks' last layers, one for each branch; see `gated_at`.
      costs: what the network spends on each.
    """

    sites: tuple[int, ...]
    costs: np.ndarray


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
    cost: Cost | None = None,
    branches: Branches | None = None,
    fan_out: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    preprocess: Callable[[jax.Array], jax.Array] | None = None,
    dtype: np.dtype | str = "float32",
    devices: Sequence[jax.Device] | None = None,
    **options: Any,
) -> "Estimate":
    """`estimate_furs` of one network, compiled once: (variables, batches, num_layers, seed).

    Args:
      net, channels: as of `estimate_furs`.
      cost: what FURs are per unit of, and each site loses alike; by default MACs.
      branches: what is measured in place of sites, L of them: an image goes without a whole branch.
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
    return Estimate(
        estimator,
        net,
        tuple(int(c) for c in channels),
        cost or Macs(net),
        branches,
        preprocessing(preprocess, mean, std, net.image_shape),
        functools.partial(check_batch, net, preprocess is not None, mean is not None),
        devices or jax.devices(),
        dtype,
        fan_out and net.fans_out,
    )


class Estimate:
    """FURs of one network, by a program that is compiled once."""

    def __init__(
        self, estimator: Estimator, net: Network, channels: tuple[int, ...], cost: Cost,
        branches: Branches | None, preprocess: Callable, check: Callable[[Batch], Batch],
        devices: Sequence[jax.Device], dtype: np.dtype | str, fan_out: bool,
    ):  # fmt: skip
        """See `make_estimate`; `check` returns a batch that can be used, or raises."""
        self._estimator, self._fan_out = estimator, fan_out
        self._check, self._devices = check, devices
        widths = (1,) * len(branches.sites) if branches else channels  # of the gates
        marginal = branches.costs if branches else cost.smoothed(channels)
        if not np.all(marginal > 0):
            raise ConfigError(
                f"FURs are accuracy by what a channel costs, and at some sites one costs no "
                f"{cost.unit}: its class needs `smoothed` (furs_jax/costs/__init__.py)"
            )
        self._widths, self._rates = widths, drop_rates(widths, marginal, estimator.base_drop_rate)
        self._removed = self._rates * np.asarray(widths) * marginal
        module = net.module(channels, dtype=dtype)

        def apply(variables: Variables, images: jax.Array, gates: Gates) -> jax.Array:
            return module.apply(variables, preprocess(images), gates)

        self._apply = gated_at(apply, branches.sites, len(channels)) if branches else apply
        step = _make_step(self._apply, widths, estimator, fan_out)
        self._step = data_parallel(step, devices)
        self._limits: dict[Any, int] = {}

    def __call__(
        self, variables: Variables, batches: Iterable[Batch], num_layers: int, seed: int
    ) -> FURs:
        """As of `estimate_furs`."""
        estimator, (_, passes) = self._estimator, self._estimator.passes
        draws = estimator.most_draws
        if passes > 1 and iter(batches) is batches:
            raise ConfigError(
                f"{draws} draws read the batches {passes} times, and these can be read only once; "
                f"give a list of them, or at most {_DRAWS_PER_PASS} draws"
            )
        found = Sums()
        for number in range(passes):
            inputs = self._inputs(variables, seed, number)
            base, rise = _measure(self._step, inputs, self._parts(variables, batches))
            ratios = rise[METRICS.index(estimator.metric)] / self._removed[:, None]
            found = found.plus(rise, ratios, len(range(number, draws, passes)) or 1)
            if estimator.draws == AUTO and decided(found, num_layers, draws):
                break
        return summary(base, found, self._rates, found.weight if draws else 0, num_layers)

    def compile(self, variables: Variables, batches: Iterable[Batch]) -> None:
        """What a call would do first; of the variables only shapes and dtypes are looked at.

        `batches` are begun to be read.
        """
        # What memory they take is traced with arrays.
        zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), variables)
        part = next(self._parts(zeros, batches))
        inputs = self._inputs(abstract(variables, self._devices), 0, 0)
        self._step.lower(inputs, part).compile()

    def _inputs(self, variables: Variables, seed: int, number: int) -> tuple:
        key = jax.random.fold_in(jax.random.key(seed), 0)
        return variables, self._rates.astype(np.float32), key, np.int32(number)

    def _parts(self, variables: Variables, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches in parts that fit into memory, for all devices."""
        local = len(self._devices) // hosts.count()

        def at_once(batch: Batch) -> int:
            image = jax.ShapeDtypeStruct((1, *batch["image"].shape[1:]), batch["image"].dtype)
            if image not in self._limits:
                needed = bytes_per_image(
                    self._apply, variables, image, self._widths, self._estimator, self._fan_out
                )
                platform = self._devices[0].platform
                within = images_within(self._estimator.memory_gib, needed, platform)
                self._limits[image] = local * within
            return self._limits[image]

        for part in parts_within(map(self._check, batches), at_once, local):
            yield shard(part, len(self._devices))


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
    return math.ceil(_MEMORY_MARGIN * needed)


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
