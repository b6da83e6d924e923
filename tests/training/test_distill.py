"""Distillation: the loss against its definition, the step, the run's own teacher."""

import jax
import numpy as np
import pytest

from furs_jax.training.distill import Distillation, Teacher, distillation_loss
from furs_jax.training.step import shard
from furs_jax.training.train import train
from furs_jax.training.trainer import make_trainer
from tests.training.test_step import RECIPE, random_split, random_task


def test_the_loss_is_the_scaled_divergence():
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 5, 7)).astype(np.float32)
    p, q = (np.exp(x / 4) / np.exp(x / 4).sum(axis=1, keepdims=True) for x in (teacher, student))
    expected = 16 * np.sum(p * np.log(p / q), axis=1)
    np.testing.assert_allclose(distillation_loss(student, teacher, 4.0), expected, rtol=1e-4)
    np.testing.assert_allclose(distillation_loss(student, student, 4.0), 0.0, atol=1e-5)


def _teacher(net, alpha, seed=5):
    state = make_trainer(random_task(net, 1), net.channels, RECIPE, random_split(48)).init(seed)
    return Teacher(net.module(net.channels), jax.tree.map(np.asarray, state.variables), alpha, 2.0)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_the_teacher_s_share_decides_what_is_learnt(tiny, alpha):
    """Share 0 trains as without a teacher; share 1 doesn't see the labels."""
    task, split = random_task(tiny, 1), random_split(16)
    other = (split.labels + 1) % 10
    steps = {}
    for name, teacher, labels in (
        ("taught", _teacher(tiny, alpha), split.labels),
        ("alone", None, split.labels),
        ("other labels", _teacher(tiny, alpha), other),
    ):
        objective = teacher and Distillation(RECIPE.label_smoothing, teacher)
        trainer = make_trainer(task, tiny.channels, RECIPE, split, objective)
        state = trainer.start(0)
        state, _ = trainer.step(state, shard({"image": split.images, "label": labels}, 1))
        steps[name] = state.params["head"]["kernel"]
        if teacher:
            jax.tree.map(np.testing.assert_array_equal, state.extra.objective, teacher.variables)
    same = {0.0: "alone", 1.0: "other labels"}[alpha]
    differing = {0.0: "other labels", 1.0: "alone"}[alpha]
    np.testing.assert_allclose(steps["taught"], steps[same], atol=1e-6)
    assert np.max(np.abs(steps["taught"] - steps[differing])) > 1e-4


def test_distillation_resumes_and_does_not_depend_on_devices(tiny, tmp_path):
    class StoppedError(Exception):
        pass

    def stop(record):
        if record["epoch"] == 2:
            raise StoppedError

    results = []
    for devices, interrupted in ((1, False), (8, True)):
        task = random_task(tiny, devices)
        trainer = make_trainer(
            task, tiny.channels, RECIPE, random_split(48), Distillation(teacher=_teacher(tiny, 0.7))
        )
        folder = tmp_path / str(devices)
        if interrupted:
            with pytest.raises(StoppedError):
                train(trainer, 0, folder, on_epoch=stop)
        state, record = train(trainer, 0, folder)
        results.append((state.variables, record["loss"]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=5e-3, atol=1e-4), *results)
