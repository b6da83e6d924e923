"""A network in one safetensors file: loaded, it computes the same, and damage is one line."""

import json
import sys

import jax
import numpy as np
import pytest

import furs_jax
from furs_jax.errors import ConfigError, DamagedError
from furs_jax.jobs import exported
from furs_jax.jobs.exported import describe
from furs_jax.networks.network import Network
from furs_jax.training import packed as packed_module
from furs_jax.training.packed import pack, unpack
from tests.jobs.trained import applied, as_trained, images, packed, small
from tests.own_network import Fork


def pruned():
    net = small("resnet8_cifar", 0.25)
    channels = (3, 3, 5, 6, 9, 12)
    places = tuple(tuple(range(2 * c, c, -1)) for c in channels)
    return net.of(channels, places=places)


NETWORKS = {
    "resnet": lambda: (small(), (3, 5, 9, 7, 16, 10)),
    "local": lambda: (small(padding="local"), (3, 5, 9, 7, 16, 10)),
    "pruned": lambda: (pruned(), None),
    "low-cost layers": lambda: (small().of((4, 4, 8, 8, 16, 16), skips=(0, 3)), None),
    "mbconv": lambda: (small("mnasnet_cifar", 0.2), None),
}


@pytest.mark.parametrize("which", NETWORKS)
def test_what_is_loaded_is_what_was_packed(which, tmp_path):
    given = as_trained(*NETWORKS[which]())
    found = furs_jax.load(packed(given, tmp_path / "model.safetensors"))
    assert found.net == given.net
    assert (found.channels, found.classes) == (given.channels, given.classes)
    assert found.preprocessing == given.preprocessing
    assert jax.tree.all(jax.tree.map(np.array_equal, found.variables, given.variables))


def test_it_computes_what_the_network_computes(tmp_path):
    given = as_trained(small(), (3, 5, 9, 7, 16, 10))
    found = furs_jax.load(packed(given, tmp_path / "model.safetensors"))
    pixels = images((8, 8, 1))
    logits = found.logits(pixels)
    np.testing.assert_allclose(logits, applied(given, pixels), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.predict(pixels), jax.nn.softmax(logits), rtol=1e-5, atol=1e-7)


def test_the_file_tells_what_its_arrays_are(tmp_path):
    path = packed(as_trained(small()), tmp_path / "model.safetensors")
    record, variables = unpack(path)
    assert record == json.loads(json.dumps(describe(as_trained(small()))))
    assert record["network"] == "resnet8_cifar"
    assert record["channels"] == [4, 4, 8, 8, 16, 16]
    assert variables["params"]["head"]["kernel"].shape == (16, 10)


def test_a_network_of_one_s_own_is_named_again(tmp_path, monkeypatch):
    """What the file names is not imported."""
    given = as_trained(Network("mine:Net", Fork(), (8, 8, 1)))
    path, record = tmp_path / "model.safetensors", describe(given)
    pack(path, given.variables, {**record, "network": "antigravity:Net"})
    with pytest.raises(ConfigError, match=r"load\(PATH, network='antigravity:Net'\)"):
        furs_jax.load(path)
    assert "antigravity" not in sys.modules
    # Searched networks are checked by trials, which take their time.
    built = {("mine:Net", 1.0, 10, "max", (8, 8, 1)): given.net}
    monkeypatch.setattr(exported, "get_network", lambda *arguments: built[arguments])
    found = furs_jax.load(path, network="mine:Net")
    assert (found.net, found.channels) == (given.net, given.channels)
    assert jax.tree.all(jax.tree.map(np.array_equal, found.variables, given.variables))


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.update(channels=[4, 4, 8, 8, 16, 15]),
        lambda record: record.update(channels=[4, 4, 8]),
        lambda record: record.update(fields={"no": 1}),
        lambda record: record.update(fields={"stem": [[]]}),
        lambda record: record.update(image_shape=3),
        lambda record: record.update(classes=["a"]),
        lambda record: record.pop("mean"),
        lambda record: record.clear(),
    ],
)
def test_a_record_that_can_t_be_is_damage(change, tmp_path):
    given = as_trained(small())
    record = describe(given)
    change(record)
    pack(tmp_path / "model.safetensors", given.variables, record)
    with pytest.raises(DamagedError, match="model.safetensors is damaged") as error:
        furs_jax.load(tmp_path / "model.safetensors")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b[:-8],
        lambda b: b[:100],
        lambda b: b"x" + b[1:],
        lambda b: b[:-50] + bytes([b[-50] ^ 1]) + b[-49:],  # a bit of an array
        lambda b: b"",
    ],
)
def test_a_damaged_file_is_named(change, tmp_path):
    path = packed(as_trained(small()), tmp_path / "model.safetensors")
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DamagedError, match="model.safetensors is damaged: it is no network"):
        furs_jax.load(path)


def test_an_export_for_other_programs_is_refused(tmp_path):
    (tmp_path / "export.json").write_text(json.dumps({"format": "onnx"}))
    with pytest.raises(ConfigError, match="its README.md tells how they use it"):
        furs_jax.load(tmp_path)
    given = as_trained(small())
    pack(tmp_path / "model.safetensors", given.variables, {"format": "pytorch"})
    with pytest.raises(ConfigError, match="its README.md tells how they use it"):
        furs_jax.load(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "export.json").write_text(json.dumps({"format": "safetensors"}))
    with pytest.raises(DamagedError, match="model.safetensors is no longer beside it"):
        furs_jax.load(tmp_path)


def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch):
    path = packed(as_trained(small()), tmp_path / "model.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    monkeypatch.delattr(sys.modules["safetensors"], "numpy", raising=False)
    with pytest.raises(packed_module.MissingExtraError, match=r"pip install -e '.\[export\]'"):
        furs_jax.load(path)
