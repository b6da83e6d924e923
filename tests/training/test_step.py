"""The steps: one device against eight, dropout's statistics, augmentation."""

import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Var

from furs_jax import gates as gates_module
from furs_jax.data.dataset import Dataset, Split
from furs_jax.errors import ConfigError
from furs_jax.gates import dropout_gates, sample_noise
from furs_jax.networks.network import Network
from furs_jax.objectives import Objective, Outcome, correct, image_losses
from furs_jax.training import step as step_module
from furs_jax.training.distill import Distillation, Teacher
from furs_jax.training.evaluate import Evaluator
from furs_jax.training.recipe import Recipe
from furs_jax.training.step import check_batch_size, data_parallel, make_eval_step, shard
from furs_jax.training.trainer import Task, make_trainer, takes_two_programs
from tests.conftest import random_variables, tiny_densenet, tiny_mbconv, tiny_network

RECIPE = Recipe(
    epochs=2, batch_size=16, learning_rate=0.1, end_learning_rate=0.001, warmup_epochs=0.0,
    momentum=0.9, nesterov=False, weight_decay=1e-4, label_smoothing=0.1, dropout=0.2,
    dropout_by_epoch=False, dropout_by_depth=True, crop_margin=1, flip=True,
)  # fmt: skip


def random_split(count: int, seed: int = 0) -> Split:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 8, 8, 1)).astype(np.uint8)
    return Split(images, rng.integers(0, 10, count).astype(np.int32))


def random_task(net, devices: int) -> Task:
    split = random_split(48)
    dataset = Dataset("noise", split, split, split, 10, (0.5,), (0.25,))
    return Task(net, dataset, tuple(jax.devices()[:devices]), "float32", 16)


@pytest.mark.parametrize("build", [tiny_network, tiny_mbconv, tiny_densenet])
def test_training_does_not_depend_on_the_number_of_devices(build):
    tiny = build()
    states = []
    for devices in (1, 8):
        task = random_task(tiny, devices)
        trainer = make_trainer(task, tiny.channels, RECIPE, task.dataset.train)
        state = trainer.start(3)
        for step in range(3):
            split = random_split(16, step)
            batch = {"image": split.images, "label": split.labels}
            state, metrics = trainer.step(state, shard(batch, devices))
        states.append((state.params, state.batch_stats, metrics))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5), *states)


def test_evaluation_counts_every_image_once_on_any_number_of_devices(tiny):
    split = random_split(45)
    module = tiny.module(tiny.channels)
    variables = module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    images = (jnp.asarray(split.images, jnp.float32) / 255 - 0.5) / 0.25
    logits = np.asarray(module.apply(variables, images))
    order = np.argsort(-logits, axis=1)
    log_softmax = np.asarray(jax.nn.log_softmax(logits))
    expected = {
        "loss": -np.mean(log_softmax[np.arange(45), split.labels]),
        "top1": np.mean(order[:, 0] == split.labels),
        "top5": np.mean(np.any(order[:, :5] == split.labels[:, None], axis=1)),
    }
    for devices in (1, 8):
        scores = Evaluator(random_task(tiny, devices), tiny.channels)(variables, split)
        assert scores == pytest.approx(expected, rel=1e-5)


def _slowly_correct(logits, label, most):
    if np.any(np.isnan(logits)) or label not in range(len(logits)):
        return 0.0
    order = sorted(range(len(logits)), key=lambda place: (-logits[place], place))
    return float(label in order[:most])


@pytest.mark.parametrize("classes", [2, 4, 5, 12])
def test_top_k_counts_ties_as_argmax_does_and_nan_never(classes):
    rng = np.random.default_rng(classes)
    logits = rng.integers(-2, 3, (400, classes)).astype(np.float32)  # ties everywhere
    logits[rng.random(logits.shape) < 0.02] = -np.inf
    logits[rng.random(logits.shape) < 0.02] = np.nan
    labels = rng.integers(-2, classes + 2, 400).astype(np.int32)  # also labels of no class
    for most in (1, 5):
        expected = [
            _slowly_correct(row, label, most) for row, label in zip(logits, labels, strict=True)
        ]
        np.testing.assert_array_equal(correct(logits, labels, most), expected)
    sound = ~np.isnan(logits).any(axis=1)
    is_best = np.argmax(logits, axis=1) == labels
    np.testing.assert_array_equal(correct(logits, labels)[sound], is_best[sound])


@pytest.mark.parametrize(("value", "top1", "top5"), [(0.0, 0.01, 0.05), (np.nan, 0.0, 0.0)])
def test_equal_logits_are_right_by_chance_and_nan_never(value, top1, top5):
    def apply(variables, images, gates):
        return jnp.full((images.shape[0], 100), value)

    step = data_parallel(make_eval_step(apply), jax.devices()[:1])
    batch = {
        "image": np.zeros((1, 200, 1, 1, 1), np.float32),
        "label": np.arange(200, dtype=np.int32)[None] % 100,
        "weight": np.ones((1, 200), np.float32),
    }
    sums = step({}, batch)
    assert float(sums["top1"]) / 200 == pytest.approx(top1)
    assert float(sums["top5"]) / 200 == pytest.approx(top5)


@pytest.mark.parametrize("noise", ["bernoulli", "gaussian"])
def test_dropout_gates_have_mean_one_and_the_stated_variance(noise):
    rates = np.array([0.0, 0.1, 0.5], np.float32)
    keys = jax.random.split(jax.random.key(0), 4000)
    sample = sample_noise(keys, (3, 4, 5))
    gates = dropout_gates(sample, rates, (3, 4, 5), noise)
    assert [g.shape for g in gates] == [(4000, 1, 1, c) for c in (3, 4, 5)]
    np.testing.assert_array_equal(gates[0], np.ones((4000, 1, 1, 3)))
    for gate, rate in zip(gates, rates, strict=True):
        assert float(jnp.mean(gate)) == pytest.approx(1.0, abs=0.03)
        assert float(jnp.var(gate)) == pytest.approx(rate / (1 - rate), abs=0.03)


def test_an_image_s_noise_does_not_depend_on_its_batch():
    keys = jax.random.split(jax.random.key(0), 8)
    whole = sample_noise(keys, (3, 4))
    np.testing.assert_array_equal(whole[2:4], sample_noise(keys[2:4], (3, 4)))


def test_batch_sizes_that_do_not_divide_are_refused_with_a_choice():
    check_batch_size("train.batch_size", 128, 8)
    with pytest.raises(ConfigError, match="train.batch_size=100 .* 8 devices; give 96 or 104"):
        check_batch_size("train.batch_size", 100, 8)
    with pytest.raises(ConfigError, match="give 8"):
        check_batch_size("train.batch_size", 5, 8)


def _trained(task, objective=None, steps=3):
    trainer = make_trainer(task, task.net.channels, RECIPE, task.dataset.train, objective)
    state = trainer.start(3)
    for step in range(steps):
        split = random_split(16, step)
        batch = {"image": split.images, "label": split.labels}
        state, metrics = trainer.step(state, shard(batch, len(task.devices)))
    return state.params, state.batch_stats, metrics


@pytest.mark.parametrize("build", [tiny_network, tiny_mbconv, tiny_densenet])
def test_two_programs_train_as_one(build):
    """Forward and backward pass apart, on one device and on eight."""
    net = build()
    whole = _trained(random_task(net, 1)._replace(step_programs="one"))
    for devices in (1, 8):
        apart = _trained(random_task(net, devices)._replace(step_programs="two"))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5), whole, apart
        )


def test_a_student_is_taught_in_two_programs_as_in_one(tiny):
    task = random_task(tiny, 2)
    module = tiny.module(tiny.channels)
    teacher = Teacher(module, random_variables(tiny, tiny.channels, 5), 0.7, 4.0)
    found = [
        _trained(task._replace(step_programs=how), Distillation(0.1, teacher))
        for how in ("one", "two")
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5), *found)


def test_a_step_is_two_programs_on_cpu_where_activations_are_large(tiny):
    task = random_task(tiny, 2)
    layers = tiny.layers(tiny.channels)
    image = 4 * sum(layer.height * layer.width * layer.outputs for layer in layers)
    least = -(-20 * 2**20 // image)  # images on a device
    for size, devices, dtype, expected in (
        (2 * least, 2, "float32", True),
        (2 * least - 2, 2, "float32", False),
        (least, 1, "float32", True),
        (least, 1, "bfloat16", False),
    ):
        given = task._replace(devices=task.devices[:devices], dtype=dtype)
        assert takes_two_programs(given, tiny.channels, size) == expected
        for how in ("one", "two"):
            forced = given._replace(step_programs=how)
            assert takes_two_programs(forced, tiny.channels, size) == (how == "two")
    gpu = types.SimpleNamespace(platform="gpu")
    assert not takes_two_programs(task._replace(devices=(gpu,)), tiny.channels, 10 * least)
    assert random_task(tiny, 1).step_programs == "auto"


class Draws(nn.Module):
    """Draws in training, on each device its own."""

    channels: tuple[int, ...] = (4,)

    @nn.compact
    def __call__(self, images, gates=None, train=False):
        x = gates_module.gate(nn.relu(nn.Conv(self.channels[0], (3, 3))(images)), gates, 0)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(10)(x.mean(axis=(1, 2)))


class Twice(Objective):
    """Applies the network with gates of its own, too, keeps an array, and tells a metric."""

    def init(self, key, module):
        return jnp.float32(0.25)

    def loss(self, network, extra, batch, key, step):
        losses = []
        for gates in (batch["gates"], [1.0 + jax.random.normal(key, (1, 1, 1, 4))]):
            logits, batch_stats = network(gates)
            losses.append(image_losses(logits, batch["label"]).mean())
        return Outcome(losses[0] + extra * losses[1], {"second": losses[1]}, batch_stats)


def test_what_a_module_and_an_objective_draw_is_the_same_in_two_programs():
    net, results = Network.from_module(Draws(), (8, 8, 1)), []
    for how in ("one", "two"):
        results.append(_trained(random_task(net, 2)._replace(step_programs=how), Twice(), 2))
        assert set(results[-1][-1]) == {"loss", "second"}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *results)


def test_the_backward_pass_is_a_program_of_its_own_and_is_given_no_zeros(tiny, monkeypatch):
    programs = {}

    def observed(step, devices, **options):
        programs[step.__name__] = step
        return data_parallel(step, devices, **options)

    monkeypatch.setattr(step_module, "data_parallel", observed)
    task = random_task(tiny, 1)._replace(step_programs="two")
    trainer = make_trainer(task, tiny.channels, RECIPE, task.dataset.train)
    assert list(programs) == ["forward", "backward"]
    batch = {"image": np.zeros((4, 8, 8, 1), np.uint8), "label": np.zeros(4, np.int32)}
    forward = jax.make_jaxpr(programs["forward"], axis_env=[("batch", 1)])
    traced = forward(trainer.start(0), batch).jaxpr
    sizes = ((4, 8), (4, 4))
    kept = [v for v in traced.outvars if isinstance(v, Var) and v.aval.shape[:2] in sizes]
    repeated = [
        v
        for equation in traced.eqns
        if equation.primitive.name == "broadcast_in_dim"
        for v in equation.outvars
    ]
    assert len(kept) > 8  # activations
    assert not set(kept) & set(repeated)
