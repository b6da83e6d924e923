"""The config files of several networks: each row builds what was published."""

import importlib
import json
import pathlib
import pickle
import re

import pytest

from configs import (
    cifar100,
    compare_fashion,
    default,
    digits,
    fashion,
    glyphs,
    imagenet,
    photos,
    r18,
    r20_cifar,
    table4,
)
from furs_jax.furs.estimate import Estimator
from furs_jax.furs.measure import estimator_of
from furs_jax.networks import get_network
from furs_jax.options.parse import flat
from tests import ROOT

# MMACs: Chen et al., CVPR 2020; of the last three, what the files say.
PUBLISHED = {
    cifar100: {
        "r20": 40.1, "r32": 68.4, "r56": 125, "r110": 252, "r20_2x": 160, "r20_4x": 642,
        "plain20": 40.1, "densenet40": 282, "pyramidnet20": 40.4,
    },
    imagenet: {
        "r18": 1810, "r18_0.8x": 1170, "r18_0.8x_kd": 1170, "mnasnet": 312, "efficientnet": 390,
    },
    fashion: {
        "resnet14": 5.0, "plain14": 5.0, "densenet16": 5.6, "pyramidnet14": 3.9, "mnasnet": 4.5,
        "resnet14_14px": 1.38, "plain14_14px": 1.38,
    },
    glyphs: {"resnet14": 1.645, "plain14": 1.645, "mnasnet": 1.490},
}  # fmt: skip
SHAPES = {cifar100: (32, 32, 3), imagenet: (224, 224, 3), fashion: (28, 28, 1), glyphs: (16, 16, 1)}
CLASSES = {cifar100: 100, imagenet: 1000, fashion: 10, glyphs: 156}


@pytest.mark.parametrize("file", PUBLISHED, ids=lambda file: file.__name__)
def test_every_row_costs_what_was_published(file):
    found = {}
    for row in file.ROWS:
        config = file.get_config(row)
        height, width, colours = SHAPES[file]
        net = get_network(
            config.network,
            config.width_multiplier,
            CLASSES[file],
            config.padding,
            (height // config.data.pool, width // config.data.pool, colours),
        )
        found[row] = net.macs(net.channels) / 1e6
    # The CIFAR figures seem to leave the stem out, about 1 %.
    assert found == pytest.approx(PUBLISHED[file], rel=0.015)


@pytest.mark.parametrize(
    ("file", "width", "macs", "shape", "classes"),
    [
        (compare_fashion, compare_fashion.WIDTH, compare_fashion.MACS, (14, 14, 1), 10),
        (table4, 1.0, table4.MACS[1.0], (224, 224, 3), 1000),
    ],
    ids=["compare_fashion", "table4"],
)
def test_a_comparison_of_methods_has_its_budgets(file, width, macs, shape, classes):
    """Of the unpruned network that the shares are of, whose weights and lessons are given."""
    config = file.get_config()
    net = get_network(config.network, width, classes, image_shape=shape)
    assert net.macs(net.channels) == macs
    assert config.prune.width_multiplier == width
    settings = list(file.sweep())
    for method in file.METHODS:
        own = [setting for setting in settings if setting["method"] == method]
        plain = [s for s in own if not {"init_from", "kd.teacher"} & s.keys()]
        assert len(plain) == len({s["flops_budget"] for s in settings}) >= 2
        assert any("init_from" in s for s in own) == (method in file.FINE_TUNED)
    assert all(s.get("kd.width_multiplier", width) == width for s in settings)
    smoke = file.get_config("smoke")
    assert smoke.final.seeds < 3
    assert smoke.search.rounds < config.search.rounds


@pytest.mark.parametrize("file", PUBLISHED, ids=lambda file: file.__name__)
def test_arguments_of_rows(file):
    first = next(iter(file.ROWS))
    assert file.get_config() == file.get_config(first)
    assert file.get_config("smoke") == file.get_config(f"{first},smoke")
    assert file.get_config("smoke").train.epochs == 2
    with pytest.raises(ValueError, match=f"known are {first}"):
        file.get_config("vgg")
    with pytest.raises(ValueError, match="there is only 'smoke'"):
        file.get_config(f"{first},smok")


@pytest.mark.parametrize("file", [digits, photos, *PUBLISHED])
def test_a_network_of_one_s_own_keeps_its_widths_unless_a_width_is_given(file):
    config = file.get_config()
    ours, width = config.network, config.width_multiplier
    config.network = "my_package.my_module:MyNet"
    assert config.width_multiplier == 1.0
    for copy in (config.copy_and_resolve_references(), pickle.loads(pickle.dumps(config))):
        assert copy.width_multiplier == 1.0
    assert json.loads(config.to_json_best_effort())["width_multiplier"] == 1.0
    config.network = ours
    assert config.width_multiplier == width
    config.width_multiplier, config.network = 0.75, "my_package.my_module:MyNet"
    assert config.width_multiplier == 0.75


def test_the_library_s_estimator_is_the_default_config_s():
    assert estimator_of(default.get_config().furs) == Estimator()


@pytest.mark.parametrize("file", [default, digits, photos, r18, r20_cifar, *PUBLISHED])
def test_smoke_is_a_short_run_of_the_same_options(file):
    config, smoke = (dict(flat(file.get_config(argument))) for argument in ("", "smoke"))
    short = {
        "search.rounds": 2,
        "response.max_trainings": 3,
        "train.epochs": 2,
        "final.train.epochs": 2,
        "final.seeds": 2,
        "furs.draws": 2,
        "furs.images": 256,
    }
    assert all(smoke[option] <= value for option, value in short.items())
    # Where the data is not at hand, other images, which ask for other batches; and less warmup.
    others = smoke["data.name"] != config["data.name"]
    words = ("data.", "batch_size", "warmup_epochs")
    for option in config.keys() - short:
        assert smoke[option] == config[option] or (
            others and any(word in option for word in words)
        ), option


@pytest.mark.parametrize("file", [default, digits, photos, r18, r20_cifar, *PUBLISHED])
def test_what_a_config_file_names_of_the_package_is_there(file):
    text = pathlib.Path(file.__file__).read_text()
    for name in re.findall(r"furs_jax/[\w/]+(?:\.\w+)?", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`(furs_jax\.[\w.]+)`", text):
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name
