"""The pure train and evaluation steps, and the only device transform; furs/steps.py has the others.

A step is a function (state or variables, batch) -> results on one device's part of the batch; all
its outputs are summed or averaged over the axis "batch", so that they don't depend on the number
of devices. `data_parallel` maps it over devices; `compiled` does it with the training step, whose
two passes may be programs of their own.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from furs_jax.data.augment import crop_and_flip
from furs_jax.errors import ConfigError
from furs_jax.gates import Gates, dropout_gates, sample_noise
from furs_jax.machine import hosts
from furs_jax.objectives import Batch, Forward, Objective, Variables, correct, image_losses
from furs_jax.training.narrowed import Narrowed, suffix_noise

AXIS = "batch"
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
    extra: "Extra | None" = None
    widths: Any = None  # int32, shape (L,): the sites' last channels, which count; None: all do

    @property
    def variables(self) -> Variables:
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def kept(self) -> "TrainState":
        """What a checkpoint holds."""
        return self.replace(extra=None)


class Extra(NamedTuple):
    """What a step needs besides, which is never trained, and made anew when resumed."""

    objective: Any  # what it keeps
    schedule: Any  # of the recipe


class Augmentation(NamedTuple):
    """See `crop_and_flip`."""

    margin: int
    flip: bool


def data_parallel(
    step: Callable,
    devices: Sequence[jax.Device] | None = None,
    donate: bool = False,
    shares: bool = False,
) -> Callable:
    """Maps step(replicated, batch) over devices: the only pmap in this package.

    Args:
      step: its first argument is replicated, its second sharded along the leading (device) axis of
        every array. With out_axes=None an output that is not reduced over `AXIS` would silently be
        that of one device.
      devices: by default all devices.
      donate: whether the first argument's buffers may be reused.
      shares: whether step returns a pair, whose second is each device's own and is given as a
        batch is.
    """
    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, 0),
        out_axes=(None, 0) if shares else None,
        devices=devices,
        donate_argnums=0 if donate else (),
    )


def replicated(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """The arrays as a mapped step returns what is replicated.

    A step that was compiled for its own results is not compiled again for what it begins with.

    Args:
      tree: of arrays, the same on all hosts.
      devices: of all hosts.
    """
    sharding = replicated_sharding(devices)
    if hosts.count() == 1:
        return jax.device_put(tree, sharding)

    def put(x: Any) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda place: x[place])

    return jax.tree.map(put, tree)


def replicated_sharding(devices: Sequence[jax.Device]) -> jax.sharding.Sharding:
    mesh = jax.sharding.Mesh(np.array(devices), (AXIS,))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def abstract(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """Shapes and dtypes of arrays that are `replicated`."""
    sharding = replicated_sharding(devices)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def shard(batch: Batch, devices: int) -> Batch:
    """Splits the leading axis of every array into (devices of this host, images of each).

    Args:
      batch: this host's part.
      devices: of all hosts.
    """
    local = devices // hosts.count()
    return {key: x.reshape(local, -1, *x.shape[1:]) for key, x in batch.items()}


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


def module_rngs(key: jax.Array) -> dict[str, jax.Array]:
    """Random numbers for whatever a module draws in training, as by nn.Dropout.

    For a name that is not given flax takes "params".
    """
    dropout, others = jax.random.split(key)
    return {"dropout": dropout, "params": others}


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """One step of training on a batch, as two functions of one device's part of it.

    Called, it is both: (state, batch) -> (state, metrics).
    """

    forward: Callable[[TrainState, Batch], tuple[tuple[dict, Any], Callable]]
    backward: Callable[[tuple[TrainState, Any], Callable], TrainState]

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        (metrics, batch_stats), pull = self.forward(state, batch)
        return self.backward((state, batch_stats), pull), metrics


class Compiled(NamedTuple):
    """A training step over devices; called, (state, batch) -> (state, metrics)."""

    run: Callable[[TrainState, Batch], tuple[TrainState, dict]]
    compile: Callable[[TrainState, Batch], object]  # for these shapes and dtypes

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        return self.run(state, batch)


def compiled(step: TrainStep, devices: Sequence[jax.Device], two_programs: bool) -> Compiled:
    """The step over devices, by programs that are compiled once; the state's buffers are reused.

    Args:
      two_programs: whether what the backward pass needs of the forward pass goes through memory.
        In one program XLA computes it anew; on CPU, the whole trunk of residual sums within the
        strided copies that gradients of weights are computed from.
    """
    if not two_programs:
        mapped = data_parallel(step, devices, donate=True)
        return Compiled(mapped, lambda *given: mapped.lower(*given).compile())
    forward = data_parallel(step.forward, devices, shares=True)
    backward = data_parallel(step.backward, devices, donate=True)

    def in_two(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        (metrics, batch_stats), pull = forward(state, batch)
        return backward((state, batch_stats), pull), metrics

    def compile_two(state: TrainState, batch: Batch) -> None:
        lowered = forward.lower(state, batch)
        made = lowered.compile()
        (_, batch_stats), pull = jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            lowered.out_info,
            made.output_shardings,
        )
        backward.lower((state, batch_stats), pull).compile()

    return Compiled(in_two, compile_two)


def make_train_step(
    module: Any,
    optimizer: optax.GradientTransformation,
    objective: Objective,
    preprocess: Callable[[jax.Array], jax.Array],
    augmentation: Augmentation,
    two_programs: bool = False,
) -> TrainStep:
    """One step of training on a batch.

    Args:
      module: linen module with `axis_name` AXIS.
      optimizer: its `update` is given the state's schedule, too.
      objective: what is minimised.
      preprocess: uint8 images to normalised ones.
      augmentation: applied after it.
      two_programs: whether its two passes will be, so that what waits between them is chosen.

    Returns:
      (state, batch) -> (state, {"loss" and the objective's metrics: means over the whole batch}).
      Its randomness depends on the state's seed and step and on an image's place in the batch; what
      the module or the objective draws, on the device, too.
    """
    channels = module.channels

    def forward(state: TrainState, batch: Batch):
        key = jax.random.fold_in(jax.random.key(state.seed), state.step)
        augment_key, noise_key = jax.random.split(key)
        images = preprocess(batch["image"])
        images = crop_and_flip(_keys(augment_key, batch), images, *augmentation)
        applied, noise = module, sample_noise(_keys(noise_key, batch), channels)
        if state.widths is not None:
            applied = Narrowed(module, state.widths)
            noise = suffix_noise(noise, state.widths, channels)
        rates = state.extra.schedule.drop_rates(state.step)
        rates = jnp.zeros(len(channels)) if rates is None else rates
        gates = dropout_gates(noise, rates, channels)
        # A module draws for all images of a device at once.
        device_key = jax.random.fold_in(jax.random.fold_in(key, 2), jax.lax.axis_index(AXIS))
        given = {**batch, "image": images, "gates": gates}

        def loss_fn(params):
            network = Forward(applied, params, state.batch_stats, images, module_rngs(device_key))
            outcome = objective.loss(network, state.extra.objective, given, device_key, state.step)
            return outcome.loss, outcome

        if two_programs:
            loss_fn = jax.checkpoint(loss_fn, policy=_is_kept, prevent_cse=False)
        loss, pull, outcome = jax.vjp(loss_fn, state.params, has_aux=True)
        metrics = {"loss": loss, **outcome.metrics}
        return jax.lax.pmean((metrics, outcome.batch_stats), AXIS), pull

    def backward(updated: tuple[TrainState, Any], pull: Callable) -> TrainState:
        state, batch_stats = updated
        (grads,) = pull(jnp.ones(()))
        return _updated(state, optimizer, jax.lax.pmean(grads, AXIS), batch_stats)

    return TrainStep(forward, backward)


def side_by_side(step: TrainStep) -> TrainStep:
    """The step of several networks at once, of states of one shape.

    The first axis of the state's arrays and of the metrics is the network, and the second one of
    the batch's, behind the images.
    """
    return TrainStep(jax.vmap(step.forward, (0, 1)), jax.vmap(step.backward))


def _is_kept(primitive: Any, *_: Any, **__: Any) -> bool:
    """Whether an operation's result may wait for the backward pass: not what only repeats another.

    A quarter of what would be kept are the zeros that a ReLU passes back.
    """
    return primitive.name != "broadcast_in_dim"


def _updated(
    state: TrainState, optimizer: optax.GradientTransformation, grads: Any, batch_stats: Any
) -> TrainState:
    updates, opt_state = optimizer.update(
        grads, state.opt_state, state.params, schedule=state.extra.schedule
    )
    params = optax.apply_updates(state.params, updates)
    return state.replace(
        step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state
    )


def make_eval_step(apply: Apply) -> Callable[[Variables, Batch], dict[str, jax.Array]]:
    """Evaluation of a batch: sums of loss, top1, top5 and count over its weighted images."""

    def eval_step(variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        logits = apply(variables, batch["image"], None)
        labels, weight = batch["label"], batch["weight"]
        sums = {
            "loss": jnp.sum(weight * image_losses(logits, labels)),
            "top1": jnp.sum(weight * correct(logits, labels)),
            "top5": jnp.sum(weight * correct(logits, labels, 5)),
            "count": jnp.sum(weight),
        }
        return jax.lax.psum(sums, AXIS)

    return eval_step
