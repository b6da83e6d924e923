"""Training: resumed against never stopped, what it saves, a loss that isn't finite."""

import dataclasses
import re
import signal

import jax
import numpy as np
import pytest

from furs_jax.data.batches import evaluation_batches
from furs_jax.errors import ConfigError, DivergedError, StoppedError, WorkdirError
from furs_jax.furs.estimate import estimate_furs
from furs_jax.machine.stop import Stop
from furs_jax.training.checkpoint import Checkpoints
from furs_jax.training.evaluate import Evaluator
from furs_jax.training.recipe import check_recipe, make_optimizer, make_schedule
from furs_jax.training.train import train
from furs_jax.training.trainer import make_trainer
from tests.training.test_step import RECIPE, random_task


@pytest.fixture
def trainer(tiny):
    task = random_task(tiny, 2)
    recipe = dataclasses.replace(RECIPE, epochs=4)
    return make_trainer(task, tiny.channels, recipe, task.dataset.train)


class StopError(Exception):
    """Stands for a kill between two epochs."""


def test_a_stopped_training_ends_as_one_never_stopped(trainer, tmp_path):
    whole, record = train(trainer, seed=5)
    epochs = []

    def stop_at(epoch):
        def on_epoch(record):
            epochs.append(record["epoch"])
            if record["epoch"] == epoch:
                raise StopError

        return on_epoch

    for epoch in (1, 3, 3, 4):  # the epoch that was stopped had not been saved
        with pytest.raises(StopError):
            train(trainer, 5, tmp_path / "c", on_epoch=stop_at(epoch))
    resumed, last = train(trainer, 5, tmp_path / "c", on_epoch=stop_at(None))
    assert epochs == [1, 1, 2, 3, 3, 3, 4, 4]
    epochs.clear()
    for step in (1, 2, 4, 6, 11):  # asked for after these steps, of three in an epoch
        stop = Stop()

        def ask(done, stop=stop, step=step):
            stop.signal = signal.SIGTERM if done == step else stop.signal

        with pytest.raises(StoppedError, match=f"saved after step {step}") as error:
            train(trainer, 5, tmp_path / "d", 1e9, stop_at(None), ask, stop=stop)
        assert error.value.status == 143
    resumed_within, at_end = train(trainer, 5, tmp_path / "d", 1e9, stop_at(None))
    assert epochs == [1, 2, 3, 4]
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)
    again, stored = train(trainer, 5, tmp_path / "c", on_epoch=stop_at(1))
    jax.tree.map(np.testing.assert_array_equal, whole, again)
    jax.tree.map(np.testing.assert_array_equal, whole, resumed_within)
    for found in (last, stored, at_end):
        assert {**found, "seconds": 0} == {**record, "seconds": 0}


def test_a_training_in_two_programs_resumes_to_the_bit(tiny, tmp_path):
    task = random_task(tiny, 2)._replace(step_programs="two")
    trainer = make_trainer(task, tiny.channels, RECIPE, task.dataset.train)
    whole, _ = train(trainer, 5)
    stop = Stop()

    def ask(done):
        stop.signal = signal.SIGTERM if done == 4 else stop.signal

    with pytest.raises(StoppedError):
        train(trainer, 5, tmp_path, 1e9, on_step=ask, stop=stop)
    resumed, _ = train(trainer, 5, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)


def test_a_signal_before_the_first_step_is_done_saves_nothing_and_does_not_wait(trainer, tmp_path):
    for last, message in ((1, "nothing but the work in progress is lost"), (2, "after step 2")):
        stop, done = Stop(), []

        def step(state, batch, stop=stop, done=done, last=last):
            done.append(1)
            if len(done) == last:
                stop._handle(signal.SIGTERM, None)
            return trainer.step(state, batch)

        folder = tmp_path / str(last)
        with pytest.raises(StoppedError, match=message):
            train(trainer._replace(step=step), 0, folder, stop=stop)
        assert len(done) == last
        with Checkpoints(folder) as checkpoints:
            assert (checkpoints.record() is None) == (last == 1)


def test_seeds_matter_and_repeat(trainer):
    first, again, other = (train(trainer, seed=s)[0] for s in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    kernel = [v["params"]["head"]["kernel"] for v in (first, other)]
    assert not np.allclose(*kernel)


def test_checkpoints_hold_the_state_at_the_time_of_saving(trainer, tmp_path):
    # The state's buffers are donated to the next step while the save goes on.
    state = trainer.start(0)
    batch = {k: v[:16].reshape(2, 8, *v.shape[1:]) for k, v in _split(trainer).items()}
    for _step in range(3):
        state, _ = trainer.step(state, batch)
    expected = jax.tree.map(np.array, state.kept)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state.kept, {"epoch": 1})
        for _ in range(5):
            state, _ = trainer.step(state, batch)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.record() == {"epoch": 1}
        found = checkpoints.restore(trainer.abstract())
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def _split(trainer):
    return {"image": trainer.split.images, "label": trainer.split.labels}


def test_another_network_s_checkpoint_is_refused(trainer, tiny, tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, trainer.init(0), {"epoch": 1})
    wider = make_trainer(trainer.task, (4, 5, 6, 9), RECIPE, trainer.split)
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(
            WorkdirError, match="is not of this network.*float32.*8, 10.* for .*float32.*9, 10"
        ),
    ):
        checkpoints.restore(wider.abstract())
    half = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, np.float16), trainer.abstract())
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(WorkdirError, match="float32.* for .*float16"),
    ):
        checkpoints.restore(half)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tiny, tmp_path):
    task = random_task(tiny, 1)
    healthy = make_trainer(task, tiny.channels, RECIPE, task.dataset.train)
    train(healthy, 0, tmp_path)
    longer = dataclasses.replace(RECIPE, epochs=4, learning_rate=1e30)
    broken = make_trainer(task, tiny.channels, longer, task.dataset.train)
    with pytest.raises(DivergedError, match="epoch 3, step (7|8|9).*lower the learning rate"):
        train(broken, 0, tmp_path)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.record()["epoch"] == 2


def test_bfloat16_computes_and_float32_remembers(tiny):
    task = random_task(tiny, 2)._replace(dtype="bfloat16")
    images = task.dataset.search.images
    losses = {}
    with jax.numpy_dtype_promotion("standard"):  # flax mixes both in BatchNorm
        for dtype, short in (("bfloat16", "bf16"), ("float32", "f32")):
            made = make_trainer(
                task._replace(dtype=dtype), tiny.channels, RECIPE, task.dataset.train
            )
            state, record = train(made, seed=5)
            variables = state.variables
            losses[dtype] = record["loss"]
            assert {str(x.dtype) for x in jax.tree.leaves(variables)} == {"float32"}
            module = tiny.module(tiny.channels, dtype=dtype)
            text = str(jax.make_jaxpr(module.apply)(variables, task.preprocess(images)))
            found = re.findall(r":(\w+)\[[\d,]*\] = conv_general_dilated", text)
            assert set(found) == {short}
            batches = evaluation_batches(task.dataset.search, 16)
            found = estimate_furs(
                tiny, tiny.channels, variables, batches, preprocess=task.preprocess, dtype=dtype
            )
            assert np.all(np.isfinite(found.furs))
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.03)
    assert losses["bfloat16"] != losses["float32"]


def test_schedules():
    recipe = dataclasses.replace(
        RECIPE, epochs=10, warmup_epochs=2.0, dropout=0.1, dropout_by_epoch=True
    )
    optimizer, schedule = make_optimizer(recipe), make_schedule(recipe, epoch_steps=5, sites=4)
    # With constant gradients and no momentum the update is minus the learning rate.
    plain = make_optimizer(dataclasses.replace(recipe, momentum=0.0, weight_decay=0.0))
    state, rates = plain.init(np.float32(0)), []
    for _ in range(51):
        update, state = plain.update(np.float32(1), state, np.float32(0), schedule=schedule)
        rates.append(-float(update))
    np.testing.assert_allclose(rates[:10], np.arange(10) / 10 * 0.1, atol=1e-7)
    assert rates[10] == pytest.approx(0.1)
    assert rates[30] == pytest.approx((0.1 + 0.001) / 2)
    assert rates[50] == pytest.approx(0.001)
    # Momentum as in PyTorch: v = 0.9 v + (g + wd w).
    state = optimizer.init(np.float32(2))
    for _ in range(2):
        update, state = optimizer.update(np.float32(1), state, np.float32(2), schedule=schedule)
    assert float(update) == pytest.approx(-0.01 * 1.9 * (1 + 2e-4), rel=1e-5)
    np.testing.assert_allclose(schedule.drop_rates(0), np.zeros(4))
    np.testing.assert_allclose(schedule.drop_rates(25), 0.05 * np.arange(1, 5) / 4, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "train.epochs=0"),
        ({"batch_size": 64}, "more than the 48 training images"),
        ({"dropout": 1.0}, "train.dropout"),
        ({"learning_rate": 0.0}, "train.learning_rate"),
        ({"warmup_epochs": 2.0}, "warmup_epochs"),
        ({"momentum": 1.5}, "train.momentum=1.5"),
        ({"crop_margin": 8}, "crop_margin=8 must be below the images' 8 pixels"),
        ({"epochs": 1_000_000, "batch_size": 1}, "are 48,000,000 steps, more than 40,000,000"),
    ],
)
def test_bad_recipes_are_refused(tiny, change, message, monkeypatch):
    monkeypatch.setattr("furs_jax.training.recipe._MOST_STEPS", 40_000_000)
    recipe, split = dataclasses.replace(RECIPE, **change), random_task(tiny, 1).dataset.train
    with pytest.raises(ConfigError, match=message):
        check_recipe(recipe, "train", split)


def test_weights_that_overflow_in_the_last_step_are_not_saved(trainer, tmp_path):
    """The loss of a step is finite though its update is not."""
    state = jax.tree.map(np.asarray, trainer.init(0))

    def step(state, batch):
        last = int(state.step) == 11
        params = jax.tree.map(lambda x: np.where(last, np.inf, x), state.params)
        metrics = {"loss": np.float32(1), "accuracy": np.float32(0)}
        return state.replace(step=state.step + 1, params=params), metrics

    broken = trainer._replace(init=lambda seed: state, step=step)
    epochs = []
    with pytest.raises(DivergedError, match=r"params.*is not finite after step 12; lower the"):
        train(broken, 0, tmp_path, on_epoch=lambda record: epochs.append(record["epoch"]))
    assert epochs == [1, 2, 3]
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.record()["epoch"] == 3


def test_an_evaluation_that_is_not_finite_is_no_result(tiny, monkeypatch):
    sums = {"loss": float("nan"), "top1": 1.0, "top5": 1.0, "count": 16.0}
    monkeypatch.setattr("furs_jax.training.evaluate.data_parallel", lambda *_: lambda *_: sums)
    task = random_task(tiny, 1)
    with pytest.raises(DivergedError, match="loss on 48 images is nan.*lower learning rate"):
        Evaluator(task, tiny.channels)({}, task.dataset.test)


def test_a_checkpoint_of_another_training_is_refused(trainer, tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(99, trainer.init(0), {"epoch": 33, "step": 99, "seconds": 1.0})
    with pytest.raises(WorkdirError, match="not of this training; delete the folder"):
        train(trainer, 0, tmp_path)
