"""Every option: which values it can have, and how the command line spells them.

configs/default.py says what they mean. What depends on the data or on other options is checked
where that is known. Imports no JAX, so that a wrong option is told at once.
"""

import ast
import dataclasses
import difflib
import numbers
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import ml_collections

from furs_jax import paths
from furs_jax.errors import ConfigError

AUTO = "auto"
LOAD, FRESH = "load", "fresh"
MAX_RATE = 0.5  # of dropping a channel
MAX_WIDTH = 64  # of networks, times the usual one
METRICS = ("loss", "accuracy")
MODES = ("search", "train", "evaluate", "furs", "describe")
BENCHMARKS = ("headroom", "truth")  # modes that no user gives: of the runs of furs_jax.bench
PADDINGS = ("max", "local")


class Kind(Protocol):
    """The values of an option; `str` of it completes "must be ..."."""

    def allows(self, value: Any) -> bool:
        """Whether the option can have this value."""

    def parse(self, text: str) -> Any:
        """The value that the command line's text stands for; ValueError where for none."""


@dataclasses.dataclass(frozen=True)
class Number:
    """A number in a range, whose ends are finite."""

    low: float
    high: float
    whole: bool = False
    above: bool = False  # low itself is too low
    below: bool = False  # high itself is too high

    def allows(self, value: Any) -> bool:
        kind = numbers.Integral if self.whole else numbers.Real
        if not isinstance(value, kind) or isinstance(value, bool):
            return False
        low = value > self.low if self.above else value >= self.low
        return low and (value < self.high if self.below else value <= self.high)

    def parse(self, text: str) -> int | float:
        return int(text) if self.whole else float(text)

    def __str__(self) -> str:
        what = "a whole number" if self.whole else "a number"
        low, high = (f"{x}" if self.whole else f"{x:g}" for x in (self.low, self.high))
        low = f"above {low}" if self.above else f"of at least {low}"
        return f"{what} {low} and {'below' if self.below else 'at most'} {high}"


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of some words."""

    words: tuple[str, ...]

    def allows(self, value: Any) -> bool:
        return isinstance(value, str) and value in self.words

    def parse(self, text: str) -> str:
        return text

    def __str__(self) -> str:
        return f"one of {', '.join(self.words)}"


class Mode(Choice):
    """One of the words, or of a benchmark's own run."""

    def allows(self, value: Any) -> bool:
        return super().allows(value) or value in BENCHMARKS


class Switch:
    """True or False."""

    def allows(self, value: Any) -> bool:
        return isinstance(value, bool)

    def parse(self, text: str) -> bool:
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)

    def __str__(self) -> str:
        return "True or False"


class Name:
    """A text that something is looked up by."""

    def allows(self, value: Any) -> bool:
        return isinstance(value, str) and bool(value.strip())

    def parse(self, text: str) -> str:
        return text

    def __str__(self) -> str:
        return "a name"


@dataclasses.dataclass(frozen=True)
class Path(Name):
    """A file or folder of this machine, or one of some words."""

    words: tuple[str, ...] = ()

    def allows(self, value: Any) -> bool:
        return isinstance(value, str) and value != "" and "\0" not in value

    def resolve(self, value: str, option: str) -> str:
        """The value with an absolute path; ConfigError where it is no path of this machine."""
        return value if value in self.words else paths.resolve(value, f"{option}=")

    def __str__(self) -> str:
        return "".join(f"{word!r} or " for word in self.words) + "a path"


class DataName(Path):
    """The name of a data set, which may have a folder in it."""

    def resolve(self, value: str, option: str) -> str:
        return paths.resolve_data(value, option)

    def __str__(self) -> str:
        return "the name of a data set"


class Widths:
    """Channels, of each site or one number for all."""

    def allows(self, value: Any) -> bool:
        return (
            isinstance(value, tuple | list)
            and len(value) > 0
            and all(_CHANNELS.allows(width) for width in value)
        )

    def parse(self, text: str) -> Any:
        value = ast.literal_eval(text.strip())
        return tuple(value) if isinstance(value, tuple | list) else (value,)

    def __str__(self) -> str:
        return f"widths as in '(8, 16)' or 12, each {_CHANNELS}"


@dataclasses.dataclass(frozen=True)
class Either:
    """A number, or a word in its place; None is spelled as a word, too."""

    kind: Kind
    word: str | None = None

    def allows(self, value: Any) -> bool:
        # By type and value: 1 == True, and an array compares with no word.
        return (type(value) is type(self.word) and value == self.word) or self.kind.allows(value)

    def parse(self, text: str) -> Any:
        return self.word if text == str(self.word) else self.kind.parse(text)

    def __str__(self) -> str:
        return f"{self.word} or {self.kind}"


def whole(low: int, high: int) -> Number:
    return Number(low, high, whole=True)


def positive(high: float) -> Number:
    return Number(0, high, above=True)


# Far more than anything needs, and few enough that nothing overflows.
MANY = 1_000_000
_CHANNELS = whole(1, 65_536)
_COUNT, _COUNT_OR_NONE = whole(1, MANY), whole(0, MANY)
_SEED = whole(0, 2**31 - 1)
_FRACTION = Number(0, 1, above=True, below=True)
_SHARE = Number(0, 1, above=True)  # of a whole that may be taken all
_RATE = Number(0, 1, below=True)
_LARGEST = 3.4e38  # of float32
_WIDTH = Number(1 / 64, MAX_WIDTH)


def _training(prefix: str) -> dict[str, Kind]:
    kinds = {
        "epochs": _COUNT,
        "batch_size": _COUNT,
        "learning_rate": positive(_LARGEST),
        "end_learning_rate": Number(0, _LARGEST),
        "warmup_epochs": Number(0, MANY),
        "momentum": _RATE,
        "nesterov": Switch(),
        "weight_decay": Number(0, MANY),
        "label_smoothing": _RATE,
        "dropout": _RATE,
        "dropout_by_epoch": Switch(),
        "dropout_by_depth": Switch(),
        "crop_margin": whole(0, 4096),
        "flip": Switch(),
    }
    return {f"{prefix}.{name}": kind for name, kind in kinds.items()}


OPTIONS: dict[str, Kind] = {
    "mode": Mode(MODES),
    "seed": _SEED,
    "network": Name(),
    "width_multiplier": _WIDTH,
    "flops_budget": Either(Number(1, 1e15)),
    "channels": Either(Widths()),
    "channels_from": Either(Path()),
    "init_from": Either(Path()),
    "init_head": Choice((LOAD, FRESH)),
    "padding": Choice(PADDINGS),
    "dtype": Choice(("auto", "float32", "bfloat16")),
    "cpu_devices": whole(0, 1024),
    "eval_batch_size": _COUNT,
    "checkpoint_seconds": Number(0, 1e9),
    "profile": Either(Path()),
    "data.name": DataName(),
    "data.dir": Either(Path()),
    "data.search_fraction": _FRACTION,
    "data.search_split": Choice(("stratified", "last")),
    "data.seed": _SEED,
    "data.pool": whole(1, 4096),
    "data.image_size": whole(1, 16_384),
    "data.min_scale": _SHARE,
    "data.eval_crop": _SHARE,
    "data.workers": whole(0, 1024),
    "data.processes": whole(0, 1024),
    "data.prefetch": whole(1, 1024),
    "data.on_corrupt": Choice(("raise", "skip")),
    **_training("train"),
    "furs.method": Choice(("dropout", "fisher")),
    "furs.metric": Choice(METRICS),
    "furs.base_drop_rate": Number(0, MAX_RATE, above=True),
    "furs.draws": Either(whole(1, MANY), AUTO),
    "furs.max_draws": _COUNT,
    "furs.noise": Choice(("bernoulli", "gaussian")),
    "furs.variance_reduction": Switch(),
    "furs.fisher_labels": Choice(("empirical", "sampled")),
    "furs.every_epochs": _COUNT_OR_NONE,
    "furs.images": whole(0, 1_000_000_000),
    "furs.batch_size": _COUNT,
    "furs.memory_gib": positive(MANY),
    "reallocate.direction": Choice(("fur", "random", "reversed")),
    "reallocate.num_layers": _COUNT_OR_NONE,
    "reallocate.num_layers_decay": Number(0, MANY),
    "reallocate.step": Number(0, 1000),
    "reallocate.step_from_start": Switch(),
    "reallocate.step_decay": Number(0, 1000),
    "reallocate.min_channels": _CHANNELS,
    "reallocate.channel_multiple": _CHANNELS,
    "search.rounds": _COUNT,
    "search.select": Choice(("last", "best")),
    "search.warm_start": Switch(),
    "search.warm_epochs": _COUNT,
    "search.warm_learning_rate": positive(_LARGEST),
    "search.patience": _COUNT_OR_NONE,
    "search.stop_when_equal": Switch(),
    "kd.teacher": Either(Path(("original",))),
    "kd.network": Either(Name()),
    "kd.width_multiplier": Either(_WIDTH),
    "kd.alpha": Number(0, 1),
    "kd.temperature": positive(MANY),
    "final.seeds": _COUNT,
    "final.use_search_split": Switch(),
    **_training("final.train"),
}


def flat(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The options of a config or its JSON, as ("train.epochs", 20)."""
    for key, value in config.items():
        if isinstance(value, ml_collections.ConfigDict | dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def check_option(option: str, value: Any, name: str | None = None) -> None:
    """Raises ConfigError, by `name` or the option's own, where it can't have the value."""
    if not OPTIONS[option].allows(value):
        raise ConfigError(f"{name or option}={_short(value)} must be {OPTIONS[option]}")
    if is_path(option) and value is not None:
        _path_kind(option).resolve(value, option)


def check(config: ml_collections.ConfigDict) -> None:
    """Checks every option by itself.

    Raises:
      ConfigError: an option has a value that it can't have, is unknown, or is missing.
    """
    given = dict(flat(config))
    for option in given:
        if option not in OPTIONS:
            raise ConfigError(unknown(option))
    missing = [option for option in OPTIONS if option not in given]
    if missing:
        raise ConfigError(
            f"the config has no {missing[0]}; begin with what configs/default.py's get_config() "
            "returns"
        )
    for option, value in given.items():
        check_option(option, value)


def override(config: ml_collections.ConfigDict, option: str, text: str) -> None:
    """Sets an option to what the command line's text stands for.

    Raises:
      ConfigError: there is no such option, or it can't have that value.
    """
    if option not in OPTIONS:
        raise ConfigError(unknown(option))
    try:
        value = OPTIONS[option].parse(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = text
    check_option(option, value)
    _set(config, option, value)


def resolve_paths(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """A copy with every path absolute.

    Raises:
      ConfigError: one is no path of this machine.
    """
    resolved = config.copy_and_resolve_references()
    for option, value in flat(config):
        if is_path(option) and value is not None:
            _set(resolved, option, _path_kind(option).resolve(value, option))
    return resolved


def is_switch(option: str) -> bool:
    return isinstance(OPTIONS.get(option), Switch)


def is_path(option: str) -> bool:
    return isinstance(_path_kind(option), Path)


def _path_kind(option: str) -> Any:
    kind = OPTIONS.get(option)
    return kind.kind if isinstance(kind, Either) else kind


def _set(config: ml_collections.ConfigDict, option: str, value: Any) -> None:
    *groups, name = option.split(".")
    for group in groups:
        config = config[group]
    with config.unlocked(), config.ignore_type():
        config[name] = value


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an int of more digits than Python prints
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:60]}...{text[-15:]}"


def unknown(option: str, among: Iterable[str] = OPTIONS) -> str:
    """Says that there is no such option, and which may be meant."""
    group = [name for name in among if name.startswith(f"{option}.")]
    if group:
        names = ", ".join(f"--config.{name}" for name in group[:3])
        return f"--config.{option} is a group of options; give one of them, such as {names}"
    near = [f"--config.{name}" for name in nearest(option, among)]
    hint = f"did you mean {' or '.join(near)}?" if near else "configs/default.py explains them all"
    return f"there is no option --config.{option}; {hint}"


def nearest(option: str, among: Iterable[str] = OPTIONS, most: int = 3) -> list[str]:
    """Options of a like name, best first: of the same last part, wherever, or spelled alike."""
    known = list(among)
    last = {name: name.rpartition(".")[2] for name in known}
    wanted = option.lower().replace("-", "_")
    end = wanted.rpartition(".")[2]

    def likeness(name: str) -> tuple[float, float]:
        ends = difflib.SequenceMatcher(None, end, last[name]).ratio()
        whole_name = difflib.SequenceMatcher(None, wanted, name).ratio()
        return max(ends, whole_name), whole_name

    ranked = sorted(known, key=likeness, reverse=True)
    return [name for name in ranked[:most] if likeness(name)[0] >= 0.75]
