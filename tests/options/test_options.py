"""Options: every one has a kind and a range; what the command line makes of texts."""

import dataclasses
import re

import numpy as np
import pytest
from absl import flags

from configs import cifar100, default, digits, fashion, imagenet
from furs_jax import cli, config_files, paths
from furs_jax.errors import ConfigError
from furs_jax.jobs.dispatch import do
from furs_jax.options import parse as options
from furs_jax.options import schema
from furs_jax.options.kinds import Choice, DataName, Either, Name, Number, Path, SiteWidths, Switch
from furs_jax.options.parse import parse
from furs_jax.options.schema import AUTO, OPTIONS
from tests import ROOT

DEFAULTS = dict(options.flat(default.get_config()))


def load(*arguments: str, config: str = "configs/digits.py"):
    rest, overrides = cli.split_overrides(arguments)
    assert rest == []
    return cli.load(config, overrides)


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_every_option_has_a_kind_that_allows_its_default():
    assert OPTIONS.keys() == DEFAULTS.keys()
    options.check(default.get_config())
    without_value = {option for option, value in DEFAULTS.items() if value is None}
    nullable = {o for o, kind in OPTIONS.items() if isinstance(kind, Either) and not kind.word}
    assert nullable == without_value


@pytest.mark.parametrize("file", [cifar100, digits, fashion, imagenet], ids=lambda f: f.__name__)
def test_config_files_keep_to_the_ranges(file):
    for row in getattr(file, "ROWS", [""]):
        options.check(file.get_config(row))
    options.check(file.get_config("smoke"))


def wrong_values(option: str, kind) -> list:
    """Values next to the range's ends, and of other types."""
    if isinstance(kind, Either):
        wrong = wrong_values(option, kind.kind)
        return [*wrong, "Auto"] if kind.word == AUTO else [v for v in wrong if v is not None]
    if isinstance(kind, Number):
        below = kind.low if kind.above else kind.low - (1 if kind.whole else 1e-6)
        above = kind.high if kind.below else kind.high * 1.01 + 1
        wrong = [below, above, float("nan"), float("inf"), -float("inf"), True, False, "1", [1]]
        return [*wrong, None, *([1.5] if kind.whole else [])]
    if isinstance(kind, Switch):
        return [0, 1, "True", "maybe", None]
    if isinstance(kind, Choice):
        return ["", "other", kind.words[0].upper(), 1, None]
    if isinstance(kind, Path):
        before = "folder:" if isinstance(kind, DataName) else ""
        names = ["", "a\0b", "gs://bucket/x", "file:///x", "~nobody-of-this-name/x"]
        return [*(f"{before}{name}" for name in names), "", "s3://x", 1, None]
    if isinstance(kind, SiteWidths):
        return [0, 65_537, 1.5, True, "", "x", "stage=", "stage=x", "stage=0", [4], None]
    if isinstance(kind, Name):
        return ["", " ", 1, None]
    return [(), (0,), (-1,), (8, True), (8.0,), (8, None), ("8",), 8, "8", (10**30,), None]


@pytest.mark.parametrize("option", OPTIONS)
def test_values_that_no_one_can_mean_are_refused_by_name(option):
    for value in wrong_values(option, OPTIONS[option]):
        with pytest.raises(ConfigError, match=rf"\A{option}=.*\Z"):
            schema.check_option(option, value)


@pytest.mark.parametrize("option", OPTIONS)
def test_the_command_line_gives_every_option_its_value(option):
    given = DEFAULTS[option]
    config = load(f"--config.{option}={given}")
    expected = given
    if schema.path_kind(option) and given is not None:
        expected = paths.resolve_data(given, option)
    assert dict(options.flat(dataclasses.asdict(config)))[option] == expected


def test_none_can_be_given_for_what_is_none_by_default():
    row = "configs/imagenet.py:r18_0.8x_kd"
    assert load(config=row).kd.teacher is not None
    assert load("--config.kd.teacher=None", config=row).kd.teacher is None
    assert load("--config.channels=12", "--config.channels=None").channels is None
    assert load("--config.channels=None", "--config.channels=12").channels == (12,)
    for option in ("seed", "mode", "train.flip", "furs.draws"):
        with pytest.raises(ConfigError, match=f"^{option}='None' must be"):
            load(f"--config.{option}=None")


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--config.seed", "3"], ("seed", 3)),
        (["-config.seed=3"], ("seed", 3)),
        (["--config.seed=1", "--config.seed=3"], ("seed", 3)),
        (["--config.search.warm_start"], ("search.warm_start", True)),
        (["--noconfig.train.flip"], ("train.flip", False)),
        (["--config.train.flip=false"], ("train.flip", False)),
        (["--config.channels=(8, 16)"], ("channels", (8, 16))),
        (["--config.channels=[8,16]"], ("channels", (8, 16))),
        (["--config.channels=8,16"], ("channels", (8, 16))),
        (["--config.furs.draws=auto"], ("furs.draws", "auto")),
        (["--config.flops_budget=3e6"], ("flops_budget", 3e6)),
        (["--config.cost.limits.params=12e6"], ("cost.limits.params", 12e6)),
        (["--config.reallocate.fixed=conv1,stage3_*"], ("reallocate.fixed", "conv1,stage3_*")),
        (["--config.reallocate.min_channels=8"], ("reallocate.min_channels", 8)),
        (["--config.reallocate.max_channels=4,a*=16"], ("reallocate.max_channels", "4,a*=16")),
        (["--config.network=a.b:Net=1"], ("network", "a.b:Net=1")),
    ],
)
def test_ways_to_write_an_override(arguments, found):
    option, value = found
    given = dict(options.flat(dataclasses.asdict(load(*arguments))))[option]
    assert given == value
    assert type(given) is type(value)


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("epochs", "--config.train.epochs or --config.final.train.epochs?"),
        ("train.epoch", "--config.train.epochs or --config.final.train.epochs?"),
        ("final.epochs", "--config.final.train.epochs or"),
        ("widht_multiplier", "--config.width_multiplier or"),
        ("train.batch-size", "--config.train.batch_size or"),
        ("rounds", "--config.search.rounds?"),
        ("train", "is a group of options; give one of them, such as --config.train.epochs"),
        ("xyzzy", "configs/default.py explains them all"),
        ("", "configs/default.py explains them all"),
    ],
)
def test_an_unknown_option_names_those_that_may_be_meant(option, meant):
    for arguments in ([f"--config.{option}=3"], [f"--config.{option}"]):
        with pytest.raises(ConfigError) as error:
            load(*arguments)
        assert f"--config.{option}" in str(error.value)
        assert meant in str(error.value)


@pytest.mark.parametrize(
    ("argument", "meant"),
    [
        ("--wokrdir=x", "did you mean --workdir?"),
        ("--work-dir=x", "did you mean --workdir?"),
        ("--epochs=3", "did you mean --config.train.epochs or --config.final.train.epochs?"),
        ("--seed=1", "did you mean --config.seed or"),
        ("--xyzzy", "--help lists them"),
        ("--workdir", "Missing value"),
        ("--config.seed", "--config.seed needs a value"),
        ("--flagfile=/no/such/file", "flagfile"),
    ],
)
def test_an_unknown_flag_names_those_that_may_be_meant(argument, meant):
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    with pytest.raises(SystemExit) as error:
        cli.parse(["main", argument], values)
    assert re.fullmatch("furs_jax: .*", str(error.value))
    assert meant in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(: pass", "SyntaxError"),
        ("x = 1 / 0", "ZeroDivisionError"),
        ("x = 1", "has no function get_config"),
        ("def get_config(): return {'seed': 1}", "returns no ConfigDict"),
        (
            "from configs.digits import get_config as digits\n"
            "def get_config():\n  config = digits()\n  config.train.epoch = 3\n  return config",
            "--config.train.epoch; did you mean --config.train.epochs",
        ),
        (
            "from configs.digits import get_config as digits\n"
            "def get_config():\n  config = digits()\n  config.seed = -1\n  return config",
            "seed=-1 must be a whole number",
        ),
        (
            "from configs.digits import get_config as digits\n"
            "def get_config():\n  config = digits()\n  del config.seed\n  return config",
            "the config has no seed",
        ),
    ],
)
def test_a_config_file_s_mistakes_name_the_file(tmp_path, text, message):
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load(config=str(file))
    assert message in str(error.value)
    assert str(file) in str(error.value)
    assert "\n" not in config_files.one_line(error.value)


def test_config_files_are_found_here_and_in_the_project(tmp_path, monkeypatch):
    here = tmp_path / "a b:c"
    here.mkdir()
    (here / "my:config.py").write_text("from configs.digits import get_config")
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(here))
    assert config_files.find_config("my:config.py") == (here / "my:config.py", None)
    assert config_files.find_config("my:config.py:smoke") == (here / "my:config.py", "smoke")
    assert config_files.find_config("~/my:config.py:smoke") == (here / "my:config.py", "smoke")
    assert config_files.find_config("configs/digits.py:") == (ROOT / "configs/digits.py", "")
    (here / "configs").mkdir()
    (here / "configs" / "digits.py").touch()
    found = config_files.find_config("configs/digits.py:smoke")
    assert found == (here / "configs/digits.py", "smoke")
    assert load(config="my:config.py:smoke").train.epochs == 2
    with pytest.raises(ConfigError, match="there is no config file no.py in .* or "):
        config_files.find_config("no.py")


def test_paths_are_of_the_folder_that_one_calls_from(tmp_path, monkeypatch):
    here = tmp_path / "a 'b'"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "link").symlink_to("/usr/share")
    for given, expected in {
        "x/y": f"{here}/x/y",
        "../x": f"{tmp_path}/x",
        "../link/../x": f"{here}/../link/../x",  # /usr/x, as the system has it
        "-x": f"{here}/-x",
        "/x//y/": "/x/y",
        "~": "/home/me",
        "~/x": "/home/me/x",
        "$HOME/x": "/home/me/x",
        "${HOME}/x": "/home/me/x",
        "a$HOME": f"{here}/a$HOME",
        "$HOMELY/x": f"{here}/$HOMELY/x",
        "./~": f"{here}/~",
    }.items():
        assert paths.resolve(given, "--workdir=") == expected
        config = load(
            *(f"--config.{option}={given}" for option in ("init_from", "channels_from", "profile")),
            *(f"--config.{option}={given}" for option in ("kd.teacher", "data.dir")),
            f"--config.data.name=folder:{given}",
        )
        assert {config.init_from, config.channels_from, config.profile} == {expected}
        assert (config.kd.teacher, config.data.dir) == (expected, expected)
        assert config.data.name == f"folder:{expected}"
    assert load("--config.kd.teacher=original").kd.teacher == "original"
    for name in ("digits", "tfds:cifar10", "random:8x8x1:10:64"):
        assert load(f"--config.data.name={name}").data.name == name


@pytest.mark.parametrize(
    "address", ["gs://b/x", "s3://b", "http://x/y", "file:///x", "gs:/b", "x+y://z"]
)
def test_addresses_are_no_paths(address):
    with pytest.raises(ConfigError, match=r"--workdir=.*mount the bucket"):
        paths.resolve(address, "--workdir=")
    for option in ("init_from", "kd.teacher", "channels_from", "profile", "data.dir", "data.name"):
        with pytest.raises(ConfigError, match=rf"\A{option}=.*mount the bucket"):
            load(f"--config.{option}={address}")
    with pytest.raises(ConfigError, match=r"\Adata.name=idx:.*mount the bucket"):
        load(f"--config.data.name=idx:{address}")
    with pytest.raises(ConfigError, match=r"--config=.*mount the bucket"):
        load(config=address)


def test_what_runs_once_stored_as_relative_is_compared_as_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    for stored, given in (
        ("runs/a", f"{tmp_path}/runs/a"),  # by python -m furs_jax.main
        ("runs/a", f"{ROOT}/runs/a"),  # by launch/run.sh, which worked in the project's folder
        (f"{tmp_path}/x", f"{tmp_path}/link/x"),
        ("folder:data", f"folder:{tmp_path}/data"),
    ):
        assert paths.same(stored, given)
    for stored, given in (
        ("runs/a", f"{tmp_path}/runs/b"),
        ("folder:data", f"idx:{tmp_path}/data"),
        ("original", f"{tmp_path}/a"),
    ):
        assert not paths.same(stored, given)


def test_a_benchmark_s_mode_is_its_own():
    config = default.get_config()
    for mode in schema.BENCHMARKS:
        config.mode = mode
        options.check(config)
        with pytest.raises(ConfigError, match=f"mode='{mode}' must be one of search, train, eva"):
            do(parse(config), None)


def test_numbers_of_numpy_become_python_s_which_json_holds():
    config = default.get_config()
    with config.ignore_type():
        config.channels = tuple(np.array([4, 8, 8]))
        config.seed, config.train.epochs = np.int64(3), np.int32(2)
        config.train.learning_rate, config.train.flip = np.float32(0.5), True
    found = options.parse(config)
    assert (found.channels, found.seed, found.train.epochs) == ((4, 8, 8), 3, 2)
    assert (found.train.learning_rate, found.train.flip) == (0.5, True)
    assert options.as_record(found)["channels"] == [4, 8, 8]
