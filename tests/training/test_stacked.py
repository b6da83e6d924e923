"""Several narrow networks at once: a step against that of each alone, and what is refused."""

import dataclasses
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from furs_jax.data.batches import training_batch, training_batches
from furs_jax.errors import ConfigError, DivergedError, WorkdirError
from furs_jax.gates import gate
from furs_jax.networks.families.densenet import DenseNet
from furs_jax.networks.families.mbconv import MBConvNet, Stage
from furs_jax.networks.families.pyramidnet import PyramidNet
from furs_jax.networks.network import Network, TracedNetwork
from furs_jax.objectives.cross_entropy import CrossEntropy
from furs_jax.training.loading import load_network
from furs_jax.training.recipe import make_optimizer, make_schedule
from furs_jax.training.stacked import (
    Stack,
    StackEvaluator,
    make_stacked_trainer,
    most_at_once,
    step_bytes,
)
from furs_jax.training.step import AXIS, Extra, TrainState, side_by_side
from furs_jax.training.train import train
from furs_jax.training.trainer import step_of
from tests.conftest import random_variables
from tests.training.test_step import RECIPE, random_task

SEEDS = (3, 8)
OPTIMIZER = make_optimizer(RECIPE)


def small_densenet():
    """A transition between two blocks; in the first a layer reads another."""
    net = DenseNet((3, 4, 4, 3), 4, (5,), num_classes=10)
    return Network("small_densenet", net, (8, 8, 1))


def small_pyramid():
    """A ResNet whose sums no ReLU follows, which a gradient would pass, with a wide stem.

    So of a sum channels are alive that a site lacks.
    """
    return Network("small_pyramid", PyramidNet((4, 3), 6, (1,), num_classes=10), (8, 8, 1))


def small_mbconv():
    """Two blocks that squeeze, one with a shortcut."""
    stages = (Stage(3, 2, 4, 2, 1, True),)
    net = MBConvNet((6, 4, 7, 5), 4, 9, (1, 2), stages, num_classes=10, stem_stride=2)
    return Network("small_mbconv", net, (8, 8, 1))


def crossing(net):
    """Two vectors, each wider than the other at some site."""
    add = np.arange(len(net.channels)) % 2 * 2
    return [tuple(np.add(net.channels, own).tolist()) for own in (add, 2 - add)]


def random_state(net, channels, seed):
    """Of a network, as after two steps."""
    variables = random_variables(net, channels, seed)
    opt_state = jax.tree.map(np.asarray, OPTIMIZER.init(variables["params"]))
    state = TrainState(step=np.int32(2), seed=np.int32(seed), **variables, opt_state=opt_state)
    return state.replace(extra=Extra(None, make_schedule(RECIPE, 3, len(channels))))


def on_one_device(step):
    """The step, of a whole batch."""
    mapped = jax.vmap(step, (None, 0), None, axis_name=AXIS)
    return lambda state, batch: mapped(state, jax.tree.map(lambda x: x[None], batch))


def assert_close(a, b):
    """To 1e-4 of the array's largest number; 3e-5 was met."""
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * np.max(np.abs(b)))


# Of two networks one is enough to compile alone, where others' wide sites are beside it.
@pytest.mark.parametrize(
    ("build", "compared"), [(small_pyramid, 2), (small_mbconv, 1), (small_densenet, 1)]
)
def test_a_step_is_that_of_each_network(build, compared):
    """Parameters, statistics, momentum and metrics; with crops, dropout and weight decay."""
    net = build()
    task, vectors = random_task(net, 1), crossing(net)
    split, size, stack = task.dataset.train, RECIPE.batch_size, Stack(net, vectors)
    states = [random_state(net, own, seed) for own, seed in zip(vectors, SEEDS, strict=True)]
    (together,) = training_batches(split, SEEDS, range(4, 5), size)
    batches = [training_batch(split, seed, 4, size) for seed in SEEDS]
    whole, *alone = [
        on_one_device(wrap(step_of(task, own, RECIPE, CrossEntropy(), OPTIMIZER, False)))
        for own, wrap in (
            (stack.net.channels, side_by_side),
            *((v, lambda s: s) for v in vectors[:compared]),
        )
    ]

    def both(state, states, together, batches):
        each = [step(*given) for step, *given in zip(alone, states, batches, strict=False)]
        return whole(state, together), each

    program = jax.jit(both, compiler_options={"xla_backend_optimization_level": 0})
    (state, metrics), each = program(stack.state(states), states, together, batches)
    for number, (expected, told) in enumerate(each):
        found = stack.alone(state, number)
        jax.tree.map(assert_close, found, expected.kept)
        for name in told:
            assert metrics[name][number] == pytest.approx(told[name], rel=1e-5)
    # What is no narrow network's is zero.
    again = stack.state([stack.alone(state, number) for number in range(2)])
    jax.tree.map(np.testing.assert_array_equal, again, state.kept)


class Hidden(nn.Module):
    """A chain behind whose site a layer has as many channels again, of its own."""

    channels: tuple[int, ...]

    @nn.compact
    def __call__(self, images, gates=None, train=False):
        x = gate(nn.relu(nn.Conv(self.channels[0], (1, 1))(images)), gates, 0).mean((1, 2))
        return nn.Dense(10)(nn.relu(nn.Dense(self.channels[0])(x)))


class InFront(nn.Module):
    """Two sites are summed so that their first channels meet."""

    channels: tuple[int, ...]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images, gates=None, train=False):
        a, b = (
            gate(nn.relu(nn.Conv(c, (1, 1), dtype=self.dtype)(images)), gates, site)
            for site, c in enumerate(self.channels)
        )
        most = max(self.channels)
        a, b = (jnp.pad(x, ((0, 0),) * 3 + ((0, most - x.shape[-1]),)) for x in (a, b))
        return nn.Dense(10)(jnp.mean(a + b, (1, 2)))


def test_what_is_no_part_of_a_wider_network_is_refused():
    for module, vectors, why in (
        (Hidden((4,)), [(1,), (6,)], ".* is left of the wider one"),
        (InFront((4, 6)), [(4, 6), (6, 4)], "own doesn't lose channels in front"),
    ):
        net = TracedNetwork("own", module, (8, 8, 1))
        with pytest.raises(ConfigError, match=f"several widths of own can't be .*: {why}"):
            Stack(net, vectors).check()


def untrained(broken):
    """A trainer of two networks that compiles nothing, of which `broken` makes metrics and arrays.

    The second network's channels are 5 and 4.
    """
    net = small_pyramid()
    task, vectors = random_task(net, 1), [(4, 6), (5, 4)]
    trainer = make_stacked_trainer(task, vectors, RECIPE, task.dataset.train)
    states = [random_state(net, own, seed) for own, seed in zip(vectors, SEEDS, strict=True)]
    state = Stack(net, vectors).state(states)
    return trainer._replace(init=lambda seeds: state, step=lambda state, batch: broken(state))


def test_which_network_diverged_is_told():
    def loss(state):
        return state, {"loss": np.array([1, np.nan], np.float32)}

    def weights(state):
        bias = np.array(state.params["head"]["bias"])
        bias[1, 3] = np.inf
        return state.replace(params={"head": {"bias": bias}}), {"loss": np.ones(2, np.float32)}

    name = r"of network 2 of 2 \(5 4\)"
    with pytest.raises(DivergedError, match=rf"the loss {name} became nan in epoch 1, step 1;"):
        train(untrained(loss), SEEDS)
    with pytest.raises(DivergedError, match=rf"\['bias'\] {name} is not finite after step 3;"):
        train(untrained(weights), SEEDS)
    net, vectors = small_pyramid(), [(4, 6), (5, 4)]
    each = [random_variables(net, own) for own in vectors]
    evaluate, sums = StackEvaluator(random_task(net, 1), vectors), np.array([48, np.nan])
    evaluate._step = lambda *_: {"loss": sums, "top1": sums, "top5": sums, "count": np.ones(2)}
    with pytest.raises(DivergedError, match=rf"the loss {name} on 48 images is nan"):
        evaluate(each, random_task(net, 1).dataset.search)


def test_checkpoints_are_those_of_these_networks_only(tmp_path):
    trainer = untrained(lambda state: (state, {"loss": np.ones(2, np.float32)}))
    _, record = train(trainer, SEEDS, tmp_path)
    assert record["loss"] == [1.0, 1.0]
    swapped = trainer._replace(vectors=trainer.vectors[::-1])  # of the same shapes
    for other in (swapped, trainer._replace(vectors=())):
        with pytest.raises(WorkdirError, match="not of this training; delete the folder"):
            train(other, SEEDS, tmp_path)
    with pytest.raises(ConfigError, match="holds no checkpoint of a training"):
        load_network(str(tmp_path), small_pyramid(), "init_from")


def test_as_many_at_once_as_fit():
    net, vectors = small_pyramid(), [(4, 6), (5, 4), (3, 3)]
    task, widest = random_task(net, 1), (5, 6)
    split = task.dataset.train
    each = step_bytes(task, widest, RECIPE, split)
    outputs = sum(r.height * r.width * r.outputs for r in net.layers(widest)) * 16 * 4
    assert 3 * outputs < each < 20 * outputs
    half = step_bytes(task, widest, dataclasses.replace(RECIPE, batch_size=8), split)
    assert 1.5 < each / half < 2
    assert 2 * half - each > 2 * 4 * net.params(widest)  # without images: weights and momentum

    def most(platform, stats):
        device = types.SimpleNamespace(platform=platform, memory_stats=lambda: stats)
        return most_at_once(task._replace(devices=(device,)), vectors, RECIPE, split)

    assert most("cpu", {"bytes_limit": 2**40}) == most("gpu", None) == 1
    assert most("gpu", {"bytes_limit": 2**40}) == 3
    assert most("gpu", {"bytes_limit": 3 * each}) == 2
    assert most("gpu", {"bytes_limit": each}) == 1
