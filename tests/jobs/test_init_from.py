"""Beginning with given weights: all of them, or all but those of the classes."""

import types

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from configs import digits
from furs_jax.errors import ConfigError, WorkdirError
from furs_jax.jobs.prepare import check_options, dataset_of, prepare
from furs_jax.jobs.vectors import initial_network
from furs_jax.methods import Method
from furs_jax.options.parse import parse
from furs_jax.run.folder import Workdir
from furs_jax.run.phases import from_weights
from furs_jax.training.checkpoint import Checkpoints
from furs_jax.training.loading import load_network
from furs_jax.training.step import TrainState
from furs_jax.training.trainer import Trainer
from tests.conftest import random_variables, tiny_densenet, tiny_mbconv, tiny_network
from tests.training.test_step import random_task


def with_classes(net, classes):
    return type(net)(net.name, net.template.clone(num_classes=classes), net.image_shape)


def state_of(net, seed):
    """A training's state, of random weights."""
    variables = random_variables(net, net.channels, seed)
    return TrainState(step=np.int32(1), seed=np.int32(0), opt_state=(), **variables)


def arrays_of(state):
    return {k: np.asarray(v) for k, v in flatten_dict(state.variables).items()}


def save(folder, net):
    """A checkpoint as a training leaves it; returns its arrays by path."""
    state = state_of(net, 5)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(1, state, {"channels": list(net.channels)})
    return arrays_of(state)


def begun(net, **options):
    """The first state's arrays of a run with these options, whose weights are else of seed 7."""
    config = types.SimpleNamespace(**options)
    run = types.SimpleNamespace(options=config, task=random_task(net, 1))
    trainer = Trainer(*[None] * 8)._replace(init=lambda seed: state_of(net, seed))
    return arrays_of(from_weights(run, trainer).init(7))


@pytest.mark.parametrize("make", [tiny_network, tiny_mbconv, tiny_densenet])
def test_a_fresh_head_is_all_that_is_fresh(make, tmp_path):
    stored = save(tmp_path, make())
    initial = arrays_of(state_of(with_classes(make(), 6), 7))
    found = begun(with_classes(make(), 6), init_from=str(tmp_path), init_head="fresh")
    assert found.keys() == stored.keys()
    head = [path for path in found if found[path].shape != stored[path].shape]
    assert {path[-1] for path in head} == {"kernel", "bias"}
    for path, array in found.items():
        np.testing.assert_array_equal(array, initial[path] if path in head else stored[path])
    assert any(np.any(stored[path] != initial[path]) for path in stored.keys() - set(head))


def test_without_it_all_is_loaded_and_with_it_the_head_is_fresh_for_the_same_classes(tmp_path):
    stored = save(tmp_path, tiny_network())
    for head in ("load", "fresh"):
        found = begun(tiny_network(), init_from=str(tmp_path), init_head=head)
        differing = {path for path in stored if np.any(found[path] != stored[path])}
        assert differing == {("params", "head", x) for x in ("kernel", "bias") if head == "fresh"}


def test_other_classes_are_named(tmp_path):
    save(tmp_path, tiny_network())
    net = with_classes(tiny_network(), 6)
    with pytest.raises(
        ConfigError, match=r"init_from=.* was trained for 10 classes, flowers has 6$"
    ):
        load_network(str(tmp_path), net, "init_from", "flowers")
    other = with_classes(net, 10)
    other = type(net)(net.name, other.template.clone(stem=5), net.image_shape)
    with pytest.raises(WorkdirError, match="is not of this network"):
        load_network(str(tmp_path), other, "init_from")


@pytest.fixture
def config(tmp_path):
    """Of a search on 6 classes; a checkpoint of 10 lies in tmp_path/c."""
    options = digits.get_config("smoke")
    options.network, options.width_multiplier, options.cpu_devices = "resnet8_cifar", 0.25, 0
    options.data.name = "random:8x8x1:10:400"
    options.init_from = str(tmp_path / "c")
    cost, _ = initial_network(options, dataset_of(options.data))
    save(tmp_path / "c", cost.net)
    options.data.name = "random:8x8x1:6:400"
    return options


def test_a_run_on_other_classes_is_offered_a_fresh_head_and_takes_it(config):
    for mode in ("search", "train"):
        config.mode, config.init_head = mode, "load"
        with pytest.raises(
            ConfigError, match="10 classes, random:8x8x1:6:400 has 6; give --config.i"
        ):
            prepare(parse(config))
        config.init_head = "fresh"
        assert prepare(parse(config)).start == (4, 4, 8, 8, 16, 16)
    config.kd.teacher, config.init_from, config.init_head = config.init_from, None, "load"
    with pytest.raises(ConfigError, match="kd.teacher=.* 10 classes, random:8x8x1:6:400 has 6$"):
        prepare(parse(config))


def test_weights_of_other_widths_are_refused_before_the_folder_is_made(config):
    config.data.name, config.channels = "random:8x8x1:10:400", (9,)
    with pytest.raises(ConfigError, match=r"has channels \(4, .* which are not those to train"):
        prepare(parse(config))


def test_a_fresh_head_is_for_trainings_from_weights(config):
    config.init_head = "fresh"
    for mode in ("evaluate", "furs"):
        config.mode = mode
        with pytest.raises(ConfigError, match="init_head=fresh is for trainings"):
            check_options(config, Method())
    config.mode, config.init_from = "train", None
    with pytest.raises(ConfigError, match="init_head=fresh is for trainings"):
        check_options(config, Method())


def test_runs_from_before_there_were_fresh_heads_go_on(tmp_path):
    folder = Workdir(tmp_path, {"seed": 0})
    folder.start({"seed": 0}, {})
    folder.close()
    Workdir(tmp_path, {"seed": 0, "init_head": "load"}).close()
    with pytest.raises(WorkdirError, match=r"config.init_head \(load there, fresh here\)"):
        Workdir(tmp_path, {"seed": 0, "init_head": "fresh"})
