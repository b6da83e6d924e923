"""What README and docs show can be done as it stands there."""

import ast
import functools
import importlib
import importlib.util
import re
import shlex
import sys
import textwrap

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import furs_jax
from furs_jax import cli
from furs_jax.bench.__main__ import BENCHMARKS
from furs_jax.data import load_dataset
from furs_jax.jobs.dispatch import do
from furs_jax.networks.products import traced_macs
from furs_jax.options.schema import OPTIONS
from tests import ROOT
from tests.conftest import random_variables

PAGES = {path: path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]}
README, REFERENCE, PYTHON = (
    PAGES[ROOT / name] for name in ("README.md", "docs/REFERENCE.md", "docs/PYTHON.md")
)
TEXT = "\n".join(PAGES.values())
# Everything in backticks, on one line each; a table escapes nothing that is shown here.
SPANS = [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`", TEXT)]
BLOCKS = [
    textwrap.dedent(block)
    for block in re.findall(r"(?:(?<=\n)\n|\A)((?: {4}.*\n|\n)+)", TEXT)
    if block.strip()
]


def _lines(block: str) -> list[str]:
    """Commands of several lines are one."""
    return re.sub(r"\\\n\s*", "", block).splitlines()


COMMANDS = [
    line
    for text in [*SPANS, *(line for block in BLOCKS for line in _lines(block))]
    for line in [text]
    if re.search(r"--(config|sweep|workdir)\b", line)
]
PLACES = {  # for what stands in capitals
    "DIR": "/images",
    "FILE": "/images.npz",
    "CHECKPOINT": "/run/checkpoints/final_searched_0",
    "RESULT": "/run/result.json",
    "W": "/w",
}


def test_there_are_commands():
    assert len(COMMANDS) > 40


@pytest.mark.parametrize("command", dict.fromkeys(COMMANDS), ids=lambda x: x[:60])
def test_every_command_s_options_exist(command):
    words = []
    for word in shlex.split(command):
        for placeholder, value in PLACES.items():
            word = re.sub(rf"\b{placeholder}\b", value, word)
        words.append(word.replace("...,", "16,").replace("..., ", "16, ").replace(", ...", ""))
    files = [w.removeprefix("--config=") for w in words if w.startswith("--config=")]
    rest, overrides = cli.split_overrides([w for w in words if w.startswith("--config.")])
    assert rest == []
    for file in files or ["configs/digits.py"]:
        if file == "...":
            file = "configs/digits.py"
        for row in ("plain14_14px", "resnet14_14px") if file.endswith(":ROW") else (None,):
            cli.load(file.replace("ROW", row) if row else file, overrides)
    _, swept = cli.split_overrides([w for w in words if w.startswith("--sweep.")], "sweep")
    assert set(swept) <= set(OPTIONS)


def _rows():
    """("configs/x.py", row) of every row that the table of jobs names."""
    for line in REFERENCE.splitlines():
        file = re.search(r"--config=(configs/\w+\.py)", line)
        if line.startswith("| ") and file:
            cell = line.split("|")[1]
            for name in re.findall(r"`:?([a-z][a-z0-9_.]*)`", cell):
                yield file[1], name


@pytest.mark.parametrize(("file", "row"), list(_rows()))
def test_every_row_that_is_named_exists(file, row):
    assert cli.load(f"{file}:{row}", {}).network


def test_every_file_module_extra_and_name_exists():
    named = [
        x for span in SPANS for x in re.findall(r"\b(?:launch|configs|benchmarks)/[\w.]+", span)
    ]
    for name in named:
        assert (ROOT / name).exists(), name
    for name in re.findall(r"python -m ([\w.]+)", TEXT):
        assert importlib.util.find_spec(name), name
    benches = re.search(r"`python -m furs_jax.bench ([^|]*)`, with", REFERENCE)[1]
    assert set(re.findall(r"\w+", benches)) - {"or"} == set(BENCHMARKS)
    setup = (ROOT / "setup.py").read_text()
    extras = {*re.findall(r"FURS_EXTRAS=([\w,]+)", TEXT), *re.findall(r"-e \.\[(\w+)\]", TEXT)}
    for extra in ",".join(extras).split(","):
        assert f'"{extra}": [' in setup, extra
    for name in re.findall(
        r"`(?:furs_jax|data|furs|search|final|train)\.[\w.]+`", README + REFERENCE
    ):
        option = name.strip("`")
        if option.startswith("furs_jax."):
            module, _, attribute = option.rpartition(".")
            assert attribute in ("bench", "report") or hasattr(
                importlib.import_module(module), attribute
            )
        else:
            assert option in OPTIONS, option


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(page):
    for name, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", PAGES[page]):
        if name.startswith("http"):
            continue
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), name
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.M)
            slugs = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings]
            assert anchor in slugs, f"{name}#{anchor}"


def test_every_page_can_be_reached():
    for page in PAGES:
        assert page.name == "README.md" or f"(docs/{page.name})" in README


def _blocks_after(heading: str, page: str = README) -> list[str]:
    """The indented blocks of a section, as they are printed."""
    text = f"\n{page}".partition(f"\n{heading}")[2].partition("\n#")[0]
    blocks = re.findall(r"(?:(?<=\n)\n)((?: {4}.*\n|\n)+)", text)
    return [textwrap.dedent(block) for block in blocks]


def test_the_python_block_runs_as_it_is_printed_twice(tmp_path, monkeypatch):
    """But for the length of the search; and what is loaded there, as README shows it."""
    (block,) = _blocks_after("# In Python", PYTHON)
    *_, loading = _blocks_after("## Take it away")
    monkeypatch.chdir(tmp_path)
    search, lengths = importlib.import_module("furs_jax.jobs.search"), []

    def short(config, workdir):
        lengths.append((config.train.epochs, config.final.train.epochs, config.search.rounds))
        config.train.epochs = config.final.train.epochs = config.search.rounds = 1
        config.furs.method = "fisher"
        return whole(config, workdir)

    whole = search.search
    monkeypatch.setattr(search, "search", short)
    data = load_dataset("digits")
    for _ in range(2):
        names = {}
        exec(compile(block, "README.md", "exec"), names)
        assert names["result"]["searched"]["channels"] == list(names["found"].channels)
        assert names["channels"] != names["found"].channels
        net, found = names["net"], names["found"]
        assert net.macs(names["channels"]) <= net.macs(net.channels)
        right = found.predict(data.test.images).argmax(axis=1) == data.test.labels
        score = names["result"]["searched"]["seeds"][0]["top1"]
        assert np.mean(right) == pytest.approx(score, abs=1e-6)
        loaded = {"images": data.test.images}
        exec(compile(loading.replace("runs/demo", "runs/mine"), "README.md", "exec"), loaded)
        assert loaded["found"].channels == found.channels
    assert lengths == [(20, 20, 10)] * 2
    assert (tmp_path / "runs" / "mine" / "result.json").exists()


@pytest.fixture(params=["once", "twice"])
def own(request, tmp_path, monkeypatch):
    """The README's file with a network of one's own, as it is printed, imported."""
    (block,) = _blocks_after("## Your own network")
    (tmp_path / "my_module.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_module", raising=False)
    module = importlib.import_module("my_module")
    return module if request.param == "once" else importlib.reload(module)


def _modules(own):
    return [
        value
        for value in vars(own).values()
        if isinstance(value, type) and issubclass(value, nn.Module)
    ]


def test_the_networks_of_one_s_own_can_be_searched(own):
    flat = " ".join(README.split())
    call = re.search(r"`furs_jax\.Network\.from_module\((\w+)\(\), (\(.*?\))\)`", flat)
    assert hasattr(own, call[1])
    assert f"my_module:{call[1]}" in flat
    shape = ast.literal_eval(call[2])
    for module in _modules(own):
        net = furs_jax.Network.from_module(module(), shape)
        assert net.fans_out, module  # or FURs take a pass for each site
        channels = tuple(c + net.multiple * (site % 2) for site, c in enumerate(net.channels))
        image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        init = net.module(channels).init
        params = jax.eval_shape(init, jax.random.key(0), image)["params"]
        assert sum(x.size for x in jax.tree.leaves(params)) == net.params(channels)
        assert traced_macs(init, jax.random.key(0), image) == net.macs(channels)


def test_the_command_for_one_s_own_network_finds_it(own, capsys):
    assert own.MyNet
    config = cli.load("configs/default.py", {"network": "my_module:MyNet", "mode": "describe"})
    do(config, None)
    assert "my_module:MyNet for the images of digits: 8x8x1" in capsys.readouterr().out


def test_what_the_readme_says_a_network_does_it_does():
    text = PYTHON.partition("\nA *site*")[0]
    called = re.findall(r"\b(?:furs_jax|net)\.(\w+)", text)
    assert {"get_network", "estimate_furs", "reallocate", "search", "module"} <= set(called)
    net = furs_jax.get_network("resnet8_cifar", 0.25, num_classes=10, image_shape=(8, 8, 1))
    for name in called:
        assert hasattr(furs_jax, name) or hasattr(net, name), name
    # The comment on module(): linen: apply(variables, images, gates=None, train=False).
    images, gates = jnp.ones((2, 8, 8, 1)), [jnp.ones((1, 1, 1, c)) for c in net.channels]
    variables, apply = random_variables(net, net.channels), net.module(net.channels).apply
    for options_ in ({}, {"gates": gates, "train": False}):
        assert jax.eval_shape(functools.partial(apply, **options_), variables, images).shape == (
            2,
            10,
        )
