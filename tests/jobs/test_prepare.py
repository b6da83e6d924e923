"""What is checked before a run computes anything."""

import json
import os

import pytest

from configs import digits
from furs_jax.errors import BudgetError, ConfigError
from furs_jax.jobs import prepare, vectors
from furs_jax.networks import get_network
from furs_jax.options.parse import parse
from furs_jax.widths.budget import fit_to_budget

NET = get_network("resnet8_cifar", 0.25, 10)
VECTOR = [4, 5, 6, 7, 8, 9]


def vector_of(path):
    config = digits.get_config("smoke")
    config.channels_from = str(path)
    return vectors.given_channels(config, NET)


@pytest.mark.parametrize("key", ["searched", "trained"])
def test_a_result_gives_its_vector(tmp_path, key):
    (tmp_path / "r").write_text(json.dumps({"x": 1, key: {"channels": VECTOR}}))
    assert vector_of(tmp_path / "r") == tuple(VECTOR)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "no run's result.json"),
        (b"\xff\xfe{}", "no run's result.json"),
        (b"{", "no run's result.json"),
        (b"[" * 100_000, "no run's result.json"),
        (b'{"a": ' + b"9" * 5000 + b"}", "no run's result.json"),
        (b"NaN", "no run's result.json"),
        (b"[4, 4, 4, 4, 4, 4]", "no run's result.json"),
        (b"{}", 'no "searched" or "trained"'),
        (b'{"searched": "abc"}', 'no "searched" or "trained"'),
        (b'{"trained": [1, 2]}', 'no "searched" or "trained"'),
        (b'{"trained": {"macs": 1}}', "channels are not widths"),
        (b'{"trained": {"channels": 5}}', "channels are not widths"),
        (b'{"trained": {"channels": null}}', "channels are not widths"),
        (b'{"trained": {"channels": {"0": 4}}}', "channels are not widths"),
        (b'{"trained": {"channels": [NaN, 4, 4, 4, 4, 4]}}', "no run's result.json"),
        (b'{"trained": {"channels": [true, 4, 4, 4, 4, 4]}}', "channels are not widths"),
        (b'{"trained": {"channels": [4.0, 4, 4, 4, 4, 4]}}', "channels are not widths"),
        (b'{"trained": {"channels": ["4", 4, 4, 4, 4, 4]}}', "channels are not widths"),
        (b'{"trained": {"channels": [-4, 4, 4, 4, 4, 4]}}', "channels are not widths"),
        (b'{"trained": {"channels": [1%s, 4, 4, 4, 4, 4]}}' % (b"0" * 30), "are not widths"),
        (b'{"trained": {"channels": [4, 4]}}', "must be 6 widths"),
        (b'{"trained": {"channels": [4]}, "trained": {"channels": [5]}}', "comes twice"),
        (b'{"trained": {"channels": [4], "channels": [5]}}', "comes twice"),
        (b'{"trained": {"channels": [4]}, "crc32": "00000000"}', "has changed since"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_file_that_is_no_result_is_one_line(tmp_path, text, message):
    (tmp_path / "r").write_bytes(text)
    with pytest.raises(ConfigError, match=message) as error:
        vector_of(tmp_path / "r")
    assert "channels" in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


def test_what_is_no_file_is_one_line(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 2**40)
    for path, message in (
        (tmp_path, "is a folder; give the result.json in it"),
        (tmp_path / "nothing", "is not there"),
        (tmp_path / "huge", "is no run's result.json: it has more than 16,777,216 bytes"),
        (tmp_path / "pipe", "is not there"),  # reading it would wait for ever
    ):
        with pytest.raises(ConfigError, match=f"channels_from={path} {message}"):
            vector_of(path)


@pytest.mark.parametrize(
    ("width", "min_channels", "multiple", "advice"),
    [
        (1.0, 4, 32, r"a smaller reallocate.channel_multiple \(now 32\), a larger width_mul"),
        (1.0, 40, 1, r"a smaller reallocate.min_channels \(now 40\), a larger width_mul"),
        (1.0, 40, 32, r"channel_multiple \(now 32\) and reallocate.min_channels \(now 40\), a l"),
    ],
)
def test_a_budget_that_cannot_be_met_says_what_helps(width, min_channels, multiple, advice):
    net = get_network("resnet8_cifar", width, 10, image_shape=(8, 8, 1))
    budget = net.macs(net.channels)
    with pytest.raises(BudgetError, match=f"give {advice}|give a smaller .*{advice}"):
        fit_to_budget(net, net.channels, budget, min_channels, multiple)
    # As it says.
    if "channel_multiple" in advice and "and" not in advice:
        fit_to_budget(net, net.channels, budget, min_channels, multiple // 2)
    wider = get_network("resnet8_cifar", 4 * width, 10, image_shape=(8, 8, 1))
    fit_to_budget(wider, wider.channels, wider.macs(wider.channels), min_channels, multiple)
    with pytest.raises(BudgetError, match="give a larger width_multiplier or budget$"):
        fit_to_budget(net, net.channels, 100, min_channels, multiple)


def test_a_single_image_for_furs_is_refused():
    config = digits.get_config("smoke")
    config.furs.images, config.cpu_devices = 1, 0
    with pytest.raises(
        ConfigError, match="FURs need at least two images; furs.images=1 of the 288"
    ):
        prepare.prepare(parse(config))


def test_a_budget_beyond_any_width_is_refused_at_once():
    config = digits.get_config("smoke")
    config.width_multiplier, config.flops_budget = 1.0, 1e15
    with pytest.raises(BudgetError, match="more than resnet14_cifar 64 times as wide needs"):
        vectors.initial_network(config, prepare.dataset_of(config.data))
