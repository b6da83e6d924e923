"""What is written computes what Flax computes, for each family and for whatever one's own does."""

import ast
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from furs_jax.errors import ConfigError
from furs_jax.export import Format, load_format
from furs_jax.export._lower import lower
from furs_jax.export._simplify import simplify
from furs_jax.networks.network import Network
from tests.conftest import tiny_densenet, tiny_mbconv, tiny_network
from tests.export.odd_network import Odd
from tests.jobs.trained import CLASSES, as_trained, images
from tests.own_network import Fork

onnxruntime = pytest.importorskip("onnxruntime")


def low_cost():
    return tiny_network().of((4, 5, 6, 8), skips=(0, 1, 3))


def pruned():
    places = ((6, 3, 2, 0), (7, 6, 4, 2, 1), (5, 4, 3, 2, 1, 0), (9, 8, 6, 5, 3, 2, 1, 0))
    return tiny_network().of((4, 5, 6, 8), places=places)


def sized(net: Network, *image_shape: int) -> Network:
    return Network(net.name, net.template, image_shape)


NETWORKS = {
    "resnet": lambda: sized(tiny_network(), 9, 7, 3),  # pools of odd sizes
    "local": lambda: tiny_network("local"),
    "projections": lambda: tiny_network(imagenet=True),
    "low-cost layers": low_cost,
    "pruned": pruned,
    "mbconv": tiny_mbconv,
    "densenet": lambda: sized(tiny_densenet(), 9, 8, 1),
    "own": lambda: Network("own", Fork(), (8, 8, 1)),
    "odd": lambda: Network("odd", Odd(), (11, 13, 3)),
}


@pytest.fixture(scope="module", params=NETWORKS)
def trained(request):
    """A network as if trained, images, and their logits."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        found = as_trained(NETWORKS[request.param]())
        pixels = images(found.preprocessing.image_shape)
        yield found, pixels, found.logits(pixels)


def written(trained, name, folder, fold):
    found, pixels, logits = trained
    load_format(name).write(found, folder, {"classes": list(CLASSES)}, fold)
    return pixels, logits


def close(computed, logits):
    assert np.std(logits) > 0.1  # or it would tell nothing
    np.testing.assert_allclose(computed, logits, atol=1e-5 * max(10, np.abs(logits).max()))


@pytest.mark.parametrize("fold", [False, True], ids=["plain", "folded"])
def test_onnx(trained, tmp_path, fold):
    pixels, logits = written(trained, "onnx", tmp_path, fold)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    for count in (5, 1):  # any number of images
        (computed,) = session.run(None, {"images": pixels[:count]})
        assert computed.dtype == np.float32
        close(computed, logits[:count])
    kept = session.get_modelmeta().custom_metadata_map
    assert json.loads(kept["classes"]) == list(CLASSES)


@pytest.mark.parametrize("fold", [False, True], ids=["plain", "folded"])
def test_pytorch(trained, tmp_path, fold):
    torch = pytest.importorskip("torch", reason="no torch here: what is written for it isn't run")
    pixels, logits = written(trained, "pytorch", tmp_path, fold)
    module = imported(tmp_path / "model.py")
    network = module.load()
    with torch.no_grad():
        for count in (5, 1):
            close(network(torch.from_numpy(pixels[:count])).numpy(), logits[:count])
    assert module.CLASSES == CLASSES
    assert not network.training


def imported(path):
    spec = importlib.util.spec_from_file_location("exported_model", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_module_s_source_is_harmless_and_has_its_state(trained, tmp_path):
    """Without torch: names are identifiers of their own, and texts are literals."""
    written(trained, "pytorch", tmp_path, fold=False)
    tree = ast.parse((tmp_path / "model.py").read_text())
    assigned = {
        node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)
    }
    assert ast.literal_eval(assigned["CLASSES"]) == CLASSES
    (layers, _) = next(node for node in tree.body if isinstance(node, ast.ClassDef)).body[1:]
    named = [node.targets[0].attr for node in layers.body if isinstance(node, ast.Assign)]
    assert len(set(named)) == len(named) > 1
    safetensors = pytest.importorskip("safetensors.numpy")
    state = safetensors.load_file(tmp_path / "model.safetensors")
    assert set(named) <= {name.partition(".")[0] for name in state}


def test_folding_leaves_no_batch_norm_behind_a_convolution(trained):
    found, *_ = trained
    plain, folded = (simplify(lower(found), fold) for fold in (False, True))
    kinds = [[step.kind for step in program.steps] for program in (plain, folded)]
    norms = [count.count("batch_norm") for count in kinds]
    assert norms[0] > norms[1] or found.net.name == "tiny_densenet"
    behind = {step.output for step in folded.steps if step.kind == "conv"}
    readers = folded.readers()
    for step in folded.steps:
        if step.kind == "batch_norm":
            assert step.inputs[0] not in behind or readers[step.inputs[0]] > 1
    assert kinds[0].count("conv") == kinds[1].count("conv")


class Looping(Odd):
    def __call__(self, images, gates=None, train=False):
        return jax.lax.fori_loop(0, 3, lambda _, x: x * 0.5, images.mean(axis=(1, 2)))


class Mixing(Odd):
    def __call__(self, images, gates=None, train=False):
        x = images.mean(axis=(1, 2))
        return x - x.mean(axis=0, keepdims=True)


class Summing(Odd):
    def __call__(self, images, gates=None, train=False):
        return images.mean(axis=(1, 2)) + jnp.ones_like(images[:, 0, 0, 0]).sum()


class Numbering(Odd):
    def __call__(self, images, gates=None, train=False):
        x = images.mean(axis=(1, 2))
        return x + jax.lax.broadcasted_iota(jnp.float32, x.shape, 0)


class Counting(Odd):
    def __call__(self, images, gates=None, train=False):
        return images.mean(axis=(1, 2)) * np.float32(1 / len(images))


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Looping, "can't be exported in this format: (scan|while) .*; --format=stablehlo holds"),
        (Mixing, "can't be exported in this format: .* (mixes images|counts the images)"),
        (Summing, "can't be exported in this format: reduce_sum .*counts the images"),
        (Numbering, "can't be exported in this format: iota .*numbers the images"),
        (Counting, "can't be exported for any number of images"),
    ],
)
def test_what_can_t_be_written_is_refused_in_one_line(module, reason):
    found = as_trained(Network("mine", module(), (4, 4, 3)))
    with pytest.raises(ConfigError, match=reason) as error:
        lower(found)
    assert "\n" not in str(error.value)


def test_a_format_is_one_file():
    for name in ("safetensors", "stablehlo", "onnx", "pytorch"):
        assert isinstance(load_format(name), Format)
    with pytest.raises(ConfigError, match="--format=gif must be one of onnx, pytorch, safetensors"):
        load_format("gif")


class Mine(Format):
    packages = ("no_such_package",)


def test_a_format_of_one_s_own_is_named_by_its_class(monkeypatch):
    name = f"{Mine.__module__}:{Mine.__name__}"
    with pytest.raises(ConfigError, match=f"--format={name} needs no_such_package, which is not"):
        load_format(name)
    monkeypatch.setattr(Mine, "packages", ())
    assert type(load_format(name)).__name__ == "Mine"
    for other, message in (
        ("tests.export.test_formats:lower", "is no subclass of furs_jax.export.Format"),
        ("no_such_module:X", "can't be imported"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_format(other)


def test_a_format_that_folds_nothing_says_so():
    with pytest.raises(ConfigError, match="folds no BatchNorms"):
        load_format("safetensors", fold=True)
