"""The pure steps that FURs are measured by: dropping every site alone, and gradients of gates."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from furs_jax.gates import FanOut, Gates, dropout_gates, sample_noise
from furs_jax.objectives import Batch, Variables, correct, image_losses
from furs_jax.training.step import AXIS, Apply


class Rises(NamedTuple):
    """What FURs are made of, for each of the N images of all devices, float32.

    Metrics: the loss, and where it is measured the error (1 - correct).
    """

    base: jax.Array  # shape=(2, N): loss and error of the ungated network
    rise: jax.Array  # shape=(M, L, N): of each site, above the base


# ((variables, drop rates (L,), key, number of the pass over the images), batch) -> rises
FurStep = Callable[[tuple[Variables, jax.Array, jax.Array, jax.Array], Batch], Rises]


def _metrics(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Loss and error of each image, shape (2, N)."""
    return jnp.stack([image_losses(logits, labels), 1.0 - correct(logits, labels)])


def _gather(base: jax.Array, rise: jax.Array) -> Rises:
    """The images of all devices, in the order of the batch."""
    return jax.lax.all_gather(Rises(base, rise), AXIS, axis=-1, tiled=True)


def evaluate_passes(
    apply: Apply, variables: Variables, images: jax.Array, gates: Sequence[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Logits undropped (N, K) and with each site dropped alone (L, R, N, K): a pass for each.

    `gates` has one array of shape (R, N, 1, 1, C_l) for each site.
    """

    def drop(draw: Sequence[jax.Array], only: jax.Array) -> jax.Array:
        return apply(
            variables, images, [jnp.where(o, g, 1.0) for o, g in zip(only, draw, strict=True)]
        )

    over_sites = jax.vmap(jax.vmap(drop, in_axes=(0, None)), in_axes=(None, 0))
    only = jnp.eye(len(gates), dtype=bool)
    return apply(variables, images, None), over_sites(tuple(gates), only)


def evaluate_branches(
    apply: Apply, variables: Variables, images: jax.Array, gates: Sequence[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """As `evaluate_passes`, by branches off one pass (see `FanOut`): about half the work."""
    fan = FanOut(tuple(gates))
    return fan.split(apply(variables, images, fan))


def gated_at(apply: Apply, sites: Sequence[int], count: int) -> Apply:
    """The network as a function of the gates of these sites alone, of its `count`.

    A gate of shape (N, 1, 1, 1) covers all of a site's channels. Where that is a block's last
    layer, and the shortcut is not gated with it, the whole branch is dropped.
    """

    def gated(variables: Variables, images: jax.Array, gates: Gates) -> jax.Array:
        if isinstance(gates, FanOut):
            gates = gates._replace(sites=tuple(sites))
        elif gates is not None:
            own = dict(zip(sites, gates, strict=True))
            gates = [own.get(site, jnp.float32(1)) for site in range(count)]
        return apply(variables, images, gates)

    return gated


def make_dropout_step(
    apply: Apply,
    channels: Sequence[int],
    draws: int,
    noise: str,
    fan_out: bool = True,
    variance_reduction: bool = True,
    passes: int = 1,
) -> FurStep:
    """Rise of loss and error of a batch with each site dropped alone, all sites and draws at once.

    Many draws would take much memory at once, so they are spread over several passes over the same
    images: a pass makes every `passes`-th draw, and all passes are one program. Where the draws
    can't be shared out evenly, the last passes make one less (computed, with a weight of zero).

    Args:
      apply: the network.
      channels: widths of the sites.
      draws: gates drawn per image and site, in all passes.
      noise: see `dropout_gates`.
      fan_out: by `evaluate_branches`, else by `evaluate_passes`.
      variance_reduction: stratify the draws of a channel (see `draw_noise`), and subtract from
        the loss its first-order term, sum_c dLoss/dgate_c (gate_c - 1). Gates have mean one, so
        that term is pure noise, and one backward pass knows it exactly (a control variate of
        coefficient one: the estimate stays unbiased). False: independent draws, as in the paper.
      passes: see above.

    Returns:
      A function ((variables, rates (L,), key, pass), batch) -> Rises, means over the pass's draws.
      An image's draws depend on the key and on its index, on neither batch nor device.
    """
    evaluate = evaluate_branches if fan_out else evaluate_passes
    once = -(-draws // passes)

    def dropout_step(replicated, batch: Batch) -> Rises:
        variables, rates, key, pass_ = replicated
        images, labels = batch["image"], batch["label"]
        strata = draws if variance_reduction else None
        numbers = pass_ + passes * jnp.arange(once)
        made = (numbers < draws).astype(jnp.float32)

        def draw(number: jax.Array) -> tuple[jax.Array, ...]:
            sample = draw_noise(key, batch["index"], number, channels, strata, passes)
            return dropout_gates(sample, rates, channels, noise)

        gates = jax.vmap(draw)(numbers)
        plain, dropped = evaluate(apply, variables, images, gates)
        base = _metrics(plain, labels)
        over_draws = jax.vmap(jax.vmap(_metrics, in_axes=(0, None)), in_axes=(0, None))
        rise = jnp.average(over_draws(dropped, labels), axis=1, weights=made) - base[None]
        rise = jnp.moveaxis(rise, 1, 0)
        if variance_reduction:
            gradients, _ = gate_gradients(apply, variables, images, channels, lambda _: labels)
            first = [
                jnp.sum(gradient * (jnp.average(value, axis=0, weights=made) - 1.0), axis=(1, 2, 3))
                for gradient, value in zip(gradients, gates, strict=True)
            ]
            rise = rise.at[0].add(-jnp.stack(first))
        return _gather(base, rise)

    return dropout_step


def draw_noise(
    key: jax.Array,
    index: jax.Array,
    draw: jax.Array,
    channels: Sequence[int],
    strata: int | None = None,
    passes: int = 1,
) -> jax.Array:
    """The numbers of one draw for the images of `index`, as of `sample_noise`.

    With `strata` the draws 0 to strata - 1 of a channel are evenly spaced on the circle [0, 1)
    (systematic sampling): each is uniform, and between them they drop the channel as often as its
    rate says, to within one. Those of each pass (see `make_dropout_step`) are nearly so, too.

    Draws of a single pass take the strata in order. Those of several take them in an order of each
    channel's own: in one order for all, two channels that are dropped together once would be so
    again and again, and many draws would tell little of what the two do together.
    """
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)

    if strata is None:
        keys = jax.vmap(jax.random.fold_in, (0, None))(keys, draw)
        return sample_noise(keys, channels)
    stratum = draw if passes == 1 else _stratum(keys, draw, channels, strata, passes)
    return (sample_noise(keys, channels) + stratum.astype(jnp.float32) / strata) % 1.0


def _stratum(
    keys: jax.Array, draw: jax.Array, channels: Sequence[int], strata: int, passes: int
) -> jax.Array:
    """The stratum of every image's and channel's draw, shape (N, sum(channels)).

    Strata lie in rows of `passes`, of which each pass gets one; the last row may be a short one,
    that not every pass has a draw for. Which draw of a pass is in which row, and which pass gets
    which stratum of a row, is random.
    """
    rows = -(-strata // passes)
    slot, own = draw // passes, draw % passes
    made = (jnp.arange(rows * passes) < strata).reshape(1, rows, passes, 1)
    shape = (2, rows, passes, sum(channels))
    # In one call: each costs a second to compile.
    order = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 0), shape))(keys)
    of_slots, of_passes = order[:, 0, :, own], order[:, 1]
    row = jnp.sum(made[:, :, own] & (of_slots < of_slots[:, slot][:, None]), axis=1)
    before = made & (of_passes < of_passes[:, :, own][:, :, None])
    place = jnp.sum(before, axis=2)  # in every row
    return passes * row + jnp.take_along_axis(place, row[:, None], axis=1)[:, 0]


def gate_gradients(
    apply: Apply,
    variables: Variables,
    images: jax.Array,
    channels: Sequence[int],
    labels: Callable[[jax.Array], jax.Array],
) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """dLoss/dgate of every image and channel, at gates of one, and the logits.

    Args:
      labels: logits (N, K) to labels (N,).

    Returns:
      One array of shape (N, 1, 1, C_l) for each site; logits (N, K).
    """

    def loss(gates):
        logits = apply(variables, images, gates)
        # Gates belong to images, so the gradient of the sum is each image's own.
        return jnp.sum(image_losses(logits, labels(jax.lax.stop_gradient(logits)))), logits

    ones = tuple(jnp.ones((images.shape[0], 1, 1, width)) for width in channels)
    return jax.grad(loss, has_aux=True)(ones)


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

    def fisher_step(replicated, batch: Batch) -> Rises:
        variables, rates, key, _ = replicated

        def target(logits: jax.Array) -> jax.Array:
            if labels == "empirical":
                return batch["label"]
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["index"])
            return jax.vmap(jax.random.categorical)(keys, logits)

        gradients, logits = gate_gradients(apply, variables, batch["image"], channels, target)
        fisher = jnp.stack([jnp.sum(g**2, axis=(1, 2, 3)) for g in gradients])  # (L, N)
        rise = (rates / (2.0 * (1.0 - rates)))[:, None] * fisher
        return _gather(_metrics(logits, batch["label"]), rise[None])

    return fisher_step
