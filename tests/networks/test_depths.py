"""Blocks that come and go: a block's gate of zero is the network without it, a new one like it."""

import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from furs_jax.errors import ConfigError
from furs_jax.networks import NETWORKS, get_network
from furs_jax.networks.depths import resized
from furs_jax.networks.network import TracedNetwork
from furs_jax.training.loading import module_record, with_fields
from furs_jax.widths.block_moves import last_branches
from tests.conftest import random_variables
from tests.deep_networks import DEEP, deep, logits


def test_a_stage_keeps_its_first_values_and_repeats_its_last():
    values = tuple("aabbccdef")  # stages of three blocks of two values and of three of one
    assert resized(values, (2, 1), (3, 3), (3, 3)) == values
    assert "".join(resized(values, (2, 1), (3, 3), (1, 5))) == "aadefff"
    assert "".join(resized(values, (2, 1), (3, 3), (4, 1))) == "aabbccccd"


@pytest.mark.parametrize("name", DEEP)
def test_a_branch_gate_of_zero_is_the_network_without_the_block(name):
    net = deep(name)
    variables = random_variables(net, net.channels)
    measured = last_branches(net)
    full = logits(net, variables)
    assert measured
    for stage, site in measured.items():
        dropped = logits(net, variables, {site: 0})
        assert np.max(np.abs(dropped - full)) > 1e-3 * np.std(full)
        # A stage's first block can't go: its branch's last BatchNorm at zero is the same.
        silent = flatten_dict(variables)
        for part in ("scale", "bias"):
            path = ("params", net.site_names[site], "bn", part)
            silent[path] = np.zeros_like(silent[path])
        np.testing.assert_allclose(logits(net, unflatten_dict(silent)), dropped, rtol=1e-5)
        if net.depths[stage] == 1:
            continue
        less = net.with_depths([n - (s == stage) for s, n in enumerate(net.depths)])
        shapes, own = random_variables(less, less.channels), flatten_dict(variables)
        left = {  # trunks align their last channels
            path: own[path][tuple(slice(-n, None) for n in x.shape)]
            for path, x in flatten_dict(shapes).items()
        }
        np.testing.assert_allclose(logits(less, unflatten_dict(left)), dropped, rtol=1e-4)


def test_which_branches_can_be_dropped():
    lone = {name: deep(name).with_depths([1] * len(deep(name).depths)) for name in DEEP}
    assert {name: list(last_branches(net)) for name, net in lone.items()} == {
        "cifar": [0, 1],
        "imagenet": [0],
        "mbconv": [],
    }
    assert last_branches(get_network("resnet18", padding="local")) == {}
    assert list(last_branches(get_network("resnet18"))) == [0, 1, 2, 3]
    assert list(last_branches(get_network("mnasnet_a1"))) == [1, 2, 3, 4, 5]
    assert list(last_branches(get_network("efficientnet_b0"))) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("name", DEEP)
def test_a_network_of_other_depths_is_known_again(name):
    net = deep(name)
    depths = (1, net.depths[1] + 1)
    other = net.with_depths(depths)
    assert other.depths == depths
    blocks = [f"stage{s + 1}_block{n + 1}" for s, depth in enumerate(depths) for n in range(depth)]
    assert list(dict.fromkeys(n.rpartition("_")[0] for n in other.site_names)) == blocks
    widths = dict(zip(net.site_names, net.channels, strict=True))
    for site, width in zip(other.site_names, other.channels, strict=True):
        if site in widths:
            assert width == widths[site]
    if name == "mbconv":
        assert other.template.squeezes == (0, 2, 3, 3)
    record = module_record(other)
    found = with_fields(net, record["channels"], record["fields"])
    assert found.module(other.channels) == other.template
    assert net.with_depths(net.depths) is net
    # A search that comes back has what it began with, whichever way it took.
    assert net.with_depths([n + 2 for n in net.depths]).with_depths(net.depths).macs(
        net.channels
    ) == net.macs(net.channels)


def test_other_numbers_are_those_of_the_paper_s_network():
    deeper = get_network("resnet18").with_depths((3, 4, 6, 3))
    wanted = get_network("resnet34")
    assert deeper.template == wanted.template
    assert get_network("resnet20_cifar").with_depths((5, 5, 5)).macs(
        get_network("resnet32_cifar").channels
    ) == 68_868_352  # fmt: skip


def test_what_has_no_such_stages_or_no_such_numbers_is_refused():
    for name in NETWORKS:
        net = get_network(name)
        assert bool(net.depths) == name.startswith(("resnet", "pyramidnet", "mnasnet", "eff"))
    with pytest.raises(ConfigError, match="plain14_cifar has no blocks that come and go"):
        get_network("plain14_cifar").with_depths((1, 1, 1))
    for wrong in ((1, 1), (1, 0, 1)):
        with pytest.raises(ConfigError, match=r"must be 3 numbers of blocks.*each at least 1"):
            get_network("resnet8_cifar").with_depths(wrong)
    own = TracedNetwork("own", deep("cifar").template, (8, 8, 1))  # a field may be called so
    assert own.depths == ()
