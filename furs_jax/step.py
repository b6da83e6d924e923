"""The pure train, evaluation and FUR steps, and the only device transform.

A step is a function (state or variables, batch) -> results on one device's part of the batch; all
its outputs are summed or averaged over the axis "batch", so that they don't depend on the number
of devices. `data_parallel` maps it over devices.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from furs_jax.data.augment import crop_and_flip
from furs_jax.errors import ConfigError
from furs_jax.gates import FanOut, Gates, dropout_gates, sample_noise

AXIS = "batch"
Variables = dict[str, Any]
Batch = dict[str, Any]
# (variables, uint8 images, gates) -> logits
Apply = Callable[[Variables, jax.Array, Gates], jax.Array]


@chex.dataclass(frozen=True)
class TrainState:
    """Everything that training carries from step to step; no device axis."""

    step: jax.Array  # shape=(), dtype=jnp.int32
    seed: jax.Array  # shape=(), dtype=jnp.int32; of dropout and augmentation
    params: Any
    batch_stats: Any
    opt_state: Any

    @property
    def variables(self) -> Variables:
        return {"params": self.params, "batch_stats": self.batch_stats}


class Augmentation(NamedTuple):
    """See `crop_and_flip`."""

    margin: int
    flip: bool


def data_parallel(
    step: Callable, devices: Sequence[jax.Device] | None = None, donate: bool = False
) -> Callable:
    """Maps step(replicated, batch) over devices: the only pmap in this package.

    Args:
      step: its first argument is replicated, its second sharded along the leading (device) axis of
        every array. With out_axes=None an output that is not reduced over `AXIS` would silently be
        that of one device.
      devices: by default all devices.
      donate: whether the first argument's buffers may be reused.
    """
    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, 0),
        out_axes=None,
        devices=devices,
        donate_argnums=0 if donate else (),
    )


def shard(batch: Batch, devices: int) -> Batch:
    """Splits the leading axis of every array into (devices, N / devices)."""
    return {key: x.reshape(devices, -1, *x.shape[1:]) for key, x in batch.items()}


def check_batch_size(option: str, batch_size: int, devices: int) -> None:
    """Raises ConfigError, with sizes to choose from, where devices do not divide batch_size."""
    if batch_size < 1 or batch_size % devices:
        below = batch_size // devices * devices
        choice = f"{below} or {below + devices}" if below > 0 else f"{devices}"
        raise ConfigError(
            f"{option}={batch_size} can't be split evenly over {devices} devices; give {choice}"
        )


def _keys(key: jax.Array, batch: Batch) -> jax.Array:
    """One key for each image of the whole batch, by its place there: this device's part."""
    local = batch["label"].shape[0]
    place = jax.lax.axis_index(AXIS) * local + jnp.arange(local)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, place)


def make_train_step(
    module: Any,
    optimizer: optax.GradientTransformation,
    dropout_rates: Callable[[jax.Array], jax.Array],
    preprocess: Callable[[jax.Array], jax.Array],
    augmentation: Augmentation,
    label_smoothing: float,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """One step of training on a batch.

    Args:
      module: linen module with `axis_name` AXIS.
      optimizer: its updates may depend on its own step count.
      dropout_rates: step -> rates of the sites, shape (L,).
      preprocess: uint8 images to normalised ones.
      augmentation: applied after it.
      label_smoothing: share of the target spread evenly over the classes.

    Returns:
      A function (state, batch) -> (state, {"loss", "accuracy"}: means over the whole batch). Its
      randomness depends on the state's seed and step and on an image's place in the batch.
    """
    channels = module.channels

    def train_step(state: TrainState, batch: Batch):
        key = jax.random.fold_in(jax.random.key(state.seed), state.step)
        augment_key, noise_key = jax.random.split(key)
        images = preprocess(batch["image"])
        images = crop_and_flip(_keys(augment_key, batch), images, *augmentation)
        noise = sample_noise(_keys(noise_key, batch), channels)
        gates = dropout_gates(noise, dropout_rates(state.step), channels)

        def loss_fn(params):
            logits, updated = module.apply(
                {"params": params, "batch_stats": state.batch_stats},
                images,
                gates,
                train=True,
                mutable=["batch_stats"],
            )
            labels = jax.nn.one_hot(batch["label"], logits.shape[-1])
            targets = optax.smooth_labels(labels, label_smoothing)
            return optax.softmax_cross_entropy(logits, targets).mean(), (logits, updated)

        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (logits, updated)), grads = grad_fn(state.params)
        accuracy = jnp.mean(_correct(logits, batch["label"]))
        grads, metrics, batch_stats = jax.lax.pmean(
            (grads, {"loss": loss, "accuracy": accuracy}, updated.get("batch_stats", {})), AXIS
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return state.replace(
            step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state
        ), metrics

    return train_step


def _correct(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)


def _loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def make_eval_step(apply: Apply) -> Callable[[Variables, Batch], dict[str, jax.Array]]:
    """Evaluation of a batch: sums of loss, top1, top5 and count over its weighted images."""

    def eval_step(variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        logits = apply(variables, batch["image"], None)
        labels, weight = batch["label"], batch["weight"]
        target = jnp.take_along_axis(logits, labels[:, None], axis=1)
        rank = jnp.sum(logits > target, axis=1)
        sums = {
            "loss": jnp.sum(weight * _loss(logits, labels)),
            "top1": jnp.sum(weight * _correct(logits, labels)),
            "top5": jnp.sum(weight * (rank < 5).astype(jnp.float32)),
            "count": jnp.sum(weight),
        }
        return jax.lax.psum(sums, AXIS)

    return eval_step


class FurSums(NamedTuple):
    """Sums over images. Metrics: the loss, and where it is measured the errors (1 - accuracy)."""

    count: jax.Array  # shape=(), float32
    base: jax.Array  # shape=(2,): loss and errors of the ungated network
    rise: jax.Array  # shape=(M, L): of each site, above the base
    rise_squared: jax.Array  # shape=(M, L)


FurStep = Callable[[tuple[Variables, jax.Array, jax.Array], Batch], FurSums]


def _metrics(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Loss and error of each image, shape (2, N)."""
    return jnp.stack([_loss(logits, labels), 1.0 - _correct(logits, labels)])


def _sum_up(base: jax.Array, rise: jax.Array, weight: jax.Array) -> FurSums:
    """Sums base (2, N) and rise (L, M, N) over all images of all devices."""
    rise = weight[None, None] * rise
    sums = FurSums(
        count=jnp.sum(weight),
        base=jnp.sum(weight[None] * base, axis=1),
        rise=jnp.sum(rise, axis=2).T,
        rise_squared=jnp.sum(rise**2, axis=2).T,
    )
    return jax.lax.psum(sums, AXIS)


def make_dropout_step(
    apply: Apply, channels: Sequence[int], draws: int, noise: str, fan_out: bool = True
) -> FurStep:
    """Loss and errors of a batch with each site dropped alone, all sites and draws at once.

    Args:
      apply: the network.
      channels: widths of the sites.
      draws: R, gates drawn per image and site.
      noise: see `sample_noise`.
      fan_out: by branches off one pass (see `FanOut`), else by a pass for each site and draw,
        vmapped: the same results for about twice the work.

    Returns:
      A function ((variables, rates (L,), key), batch) -> FurSums. Draw r of an image uses the key
      with the image's index and r folded in, so that it depends on neither batch nor device.
    """

    def branches(variables, images, samples, rates):  # logits (N, K), (L, R, N, K)
        gates = jax.vmap(lambda sample: dropout_gates(sample, rates, channels, noise))(samples)
        fan = FanOut(gates)
        return fan.split(apply(variables, images, fan))

    def passes(variables, images, samples, rates):
        def drop(sample, site_rates):
            return apply(variables, images, dropout_gates(sample, site_rates, channels, noise))

        over_sites = jax.vmap(jax.vmap(drop, in_axes=(0, None)), in_axes=(None, 0))
        return apply(variables, images, None), over_sites(samples, jnp.diag(rates))

    def dropout_step(replicated, batch: Batch) -> FurSums:
        variables, rates, key = replicated
        labels = batch["label"]
        samples = jax.vmap(lambda draw: draw_noise(key, batch["index"], draw, channels, noise))(
            jnp.arange(draws)
        )
        evaluate = branches if fan_out else passes
        plain, dropped = evaluate(variables, batch["image"], samples, rates)
        base = _metrics(plain, labels)
        over_draws = jax.vmap(jax.vmap(_metrics, in_axes=(0, None)), in_axes=(0, None))
        rise = jnp.mean(over_draws(dropped, labels), axis=1) - base[None]
        return _sum_up(base, rise, batch["weight"])

    return dropout_step


def make_fisher_step(apply: Apply, channels: Sequence[int], labels: str) -> FurStep:
    """The expected rise of the loss under dropout to second order, by one backward pass.

    Gates have mean one, so the first order vanishes, and with the Fisher information in place of
    the Hessian: rise_l = p_l / (2 (1 - p_l)) * sum_c (dLoss / dgate_{l,c})^2 for each image.

    Args:
      apply: the network.
      channels: widths of the sites.
      labels: "empirical" takes the true labels' gradient, "sampled" that of labels drawn from the
        network's own prediction (the Gauss-Newton matrix, in expectation).

    Returns:
      As of `make_dropout_step`, with M = 1: nothing is known of the errors.
    """

    def fisher_step(replicated, batch: Batch) -> FurSums:
        variables, rates, key = replicated
        count = batch["label"].shape[0]
        ones = tuple(jnp.ones((count, 1, 1, width)) for width in channels)

        def loss(gates):
            logits = apply(variables, batch["image"], gates)
            target = batch["label"]
            if labels == "sampled":
                keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["index"])
                target = jax.vmap(jax.random.categorical)(keys, jax.lax.stop_gradient(logits))
            # Gates belong to images, so the gradient of the sum is each image's own.
            return jnp.sum(_loss(logits, target)), logits

        gradients, logits = jax.grad(loss, has_aux=True)(ones)
        fisher = jnp.stack([jnp.sum(g**2, axis=(1, 2, 3)) for g in gradients])  # (L, N)
        rise = (rates / (2.0 * (1.0 - rates)))[:, None] * fisher
        return _sum_up(_metrics(logits, batch["label"]), rise[:, None], batch["weight"])

    return fisher_step


def draw_noise(
    key: jax.Array, index: jax.Array, draw: jax.Array, channels: Sequence[int], noise: str
) -> jax.Array:
    image_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
    draw_keys = jax.vmap(jax.random.fold_in, (0, None))(image_keys, draw)
    return sample_noise(draw_keys, channels, noise)
