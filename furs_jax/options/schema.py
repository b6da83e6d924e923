"""Every option of a run: its place, its type and the values that it can have.

configs/default.py says what they mean and has their defaults. What depends on the data or on other
options is checked where that is known. Imports no JAX, so that a wrong option is told at once.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, get_type_hints

from furs_jax import paths, plugins
from furs_jax.errors import ConfigError
from furs_jax.options.kinds import (
    CHANNELS,
    MANY,
    Choice,
    DataName,
    Depths,
    Either,
    Fitted,
    Kind,
    Name,
    Number,
    Path,
    Patterns,
    Plugin,
    SiteWidths,
    Switch,
    Widths,
    positive,
    whole,
)

AUTO = Fitted.word
ONE, TWO = "one", "two"  # programs of a training step
LOAD, FRESH = "load", "fresh"
MAX_RATE = 0.5  # of dropping a channel
MAX_WIDTH = 64  # of networks, times the usual one
METRICS = ("loss", "accuracy")
PREDICT = "predict"  # the mode that takes files
MODES = ("search", "train", "evaluate", "furs", "describe", PREDICT)
BENCHMARKS = (
    "headroom",
    "ranking",
    "truth",
)  # modes that no user gives: of the runs of furs_jax.bench
PADDINGS = ("max", "local")

# Few enough that nothing overflows.
_COUNT, _COUNT_OR_NONE = whole(1, MANY), whole(0, MANY)
_SEED = whole(0, 2**31 - 1)
_FRACTION = Number(0, 1, above=True, below=True)
_SHARE = Number(0, 1, above=True)  # of a whole that may be taken all
_RATE = Number(0, 1, below=True)
_LARGEST = 3.4e38  # of float32
_WIDTH = Number(1 / 64, MAX_WIDTH)
_RESOURCE = positive(1e15)  # MACs, bytes, ms, ...


class _Mode(Choice):
    """One of the words, or of a benchmark's own run."""

    def allows(self, value: Any) -> bool:
        return super().allows(value) or value in BENCHMARKS


def _of(kind: Kind) -> Any:
    return dataclasses.field(metadata={"kind": kind})


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """Images, and how they are split and read: config.data."""

    name: str = _of(DataName())
    dir: str | None = _of(Either(Path()))
    search_fraction: float | str = _of(Fitted(_FRACTION))
    search_split: str = _of(Choice(("stratified", "last")))
    seed: int = _of(_SEED)
    pool: int = _of(whole(1, 4096))
    image_size: int = _of(whole(1, 16_384))
    min_scale: float = _of(_SHARE)
    eval_crop: float = _of(_SHARE)
    workers: int = _of(whole(0, 1024))
    processes: int = _of(whole(0, 1024))
    prefetch: int = _of(whole(1, 1024))
    on_corrupt: str = _of(Choice(("raise", "skip")))


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained: config.train and config.final.train."""

    epochs: int | str = _of(Fitted(_COUNT))
    batch_size: int | str = _of(Fitted(_COUNT))
    learning_rate: float = _of(positive(_LARGEST))
    end_learning_rate: float = _of(Number(0, _LARGEST))
    warmup_epochs: float = _of(Number(0, MANY))
    momentum: float = _of(_RATE)
    nesterov: bool = _of(Switch())
    weight_decay: float = _of(Number(0, MANY))
    label_smoothing: float = _of(_RATE)
    dropout: float = _of(_RATE)
    dropout_by_epoch: bool = _of(Switch())
    dropout_by_depth: bool = _of(Switch())
    crop_margin: int = _of(whole(0, 4096))
    flip: bool = _of(Switch())

    def from_weights(self) -> "Recipe":
        """This recipe for a training that goes on from weights: dropout at its full rate.

        Its growth with the epoch spares a network that has learnt nothing yet. Here it would take
        away what the weights are used to: a training of one epoch would have no dropout at all.
        """
        return dataclasses.replace(self, dropout_by_epoch=False)


# What a vector may cost beside the budget: config.cost.limits, one for each file of costs/.
LimitOptions = dataclasses.make_dataclass(
    "LimitOptions",
    [(name, float | None, _of(Either(_RESOURCE))) for name in plugins.names("costs")],
    frozen=True,
)


@dataclasses.dataclass(frozen=True)
class CostOptions:
    """What widths are counted in, and may cost: config.cost."""

    resource: str = _of(Plugin(plugins.names("costs")))
    budget: float | None = _of(Either(_RESOURCE))
    batch_size: int = _of(_COUNT)
    table: str | None = _of(Either(Path()))
    limits: LimitOptions


@dataclasses.dataclass(frozen=True)
class FurOptions:
    """How FURs are measured: config.furs."""

    method: str = _of(Choice(("dropout", "fisher")))
    metric: str = _of(Choice(METRICS))
    base_drop_rate: float = _of(Number(0, MAX_RATE, above=True))
    draws: int | str = _of(Either(whole(1, MANY), AUTO))
    max_draws: int = _of(_COUNT)
    noise: str = _of(Choice(("bernoulli", "gaussian")))
    variance_reduction: bool = _of(Switch())
    fisher_labels: str = _of(Choice(("empirical", "sampled")))
    every_epochs: int = _of(_COUNT_OR_NONE)
    images: int = _of(whole(0, 1_000_000_000))
    batch_size: int = _of(_COUNT)
    memory_gib: float = _of(positive(MANY))


@dataclasses.dataclass(frozen=True)
class ReallocateOptions:
    """How the next vector follows from the FURs: config.reallocate."""

    direction: str = _of(Choice(("fur", "random", "reversed")))
    num_layers: int = _of(_COUNT_OR_NONE)
    num_layers_decay: float = _of(Number(0, MANY))
    step: float = _of(Number(0, 1000))
    step_from_start: bool = _of(Switch())
    step_decay: float = _of(Number(0, 1000))
    fixed: str | None = _of(Either(Patterns()))
    min_channels: int | str = _of(SiteWidths())
    max_channels: int | str | None = _of(Either(SiteWidths()))
    channel_multiple: int = _of(CHANNELS)


@dataclasses.dataclass(frozen=True)
class SearchOptions:
    """The rounds: config.search."""

    rounds: int = _of(_COUNT)
    select: str = _of(Choice(("last", "best")))
    warm_start: bool = _of(Switch())
    warm_epochs: int | str = _of(Fitted(_COUNT))
    warm_learning_rate: float = _of(positive(_LARGEST))
    patience: int = _of(_COUNT_OR_NONE)
    stop_when_equal: bool = _of(Switch())
    blocks: bool = _of(Switch())


@dataclasses.dataclass(frozen=True)
class ResponseOptions:
    """A search by trainings of whole vectors: config.response."""

    max_trainings: int = _of(_COUNT)
    least_gain: float = _of(Number(0, MANY))
    at_once: int | str = _of(Either(whole(1, MANY), AUTO))


@dataclasses.dataclass(frozen=True)
class PruneOptions:
    """Methods that begin with a larger network: config.prune."""

    width_multiplier: float = _of(_WIDTH)
    expand: float | None = _of(Either(Number(1, MAX_WIDTH)))
    penalty: float = _of(Number(0, MANY))


@dataclasses.dataclass(frozen=True)
class KdOptions:
    """Distillation: config.kd."""

    teacher: str | None = _of(Either(Path(("original",))))
    network: str | None = _of(Either(Name()))
    width_multiplier: float | None = _of(Either(_WIDTH))
    alpha: float = _of(Number(0, 1))
    temperature: float = _of(positive(MANY))


@dataclasses.dataclass(frozen=True)
class FinalOptions:
    """The comparison at the end: config.final."""

    seeds: int = _of(_COUNT)
    original: bool = _of(Switch())
    timed: bool = _of(Switch())
    use_search_split: bool = _of(Switch())
    train: Recipe


@dataclasses.dataclass(frozen=True)
class Options:
    """All options of a run."""

    mode: str = _of(_Mode(MODES))
    seed: int = _of(_SEED)
    method: str = _of(Plugin(plugins.names("methods")))
    objective: str = _of(Plugin(plugins.names("objectives")))
    network: str = _of(Name())
    width_multiplier: float = _of(_WIDTH)
    depths: tuple[int, ...] | None = _of(Either(Depths()))
    flops_budget: float | None = _of(Either(Number(1, 1e15)))
    channels: tuple[int, ...] | None = _of(Either(Widths()))
    channels_from: str | None = _of(Either(Path()))
    init_from: str | None = _of(Either(Path()))
    init_head: str = _of(Choice((LOAD, FRESH)))
    padding: str = _of(Choice(PADDINGS))
    dtype: str = _of(Choice(("auto", "float32", "bfloat16")))
    cpu_devices: int = _of(whole(0, 1024))
    step_programs: str = _of(Choice((AUTO, ONE, TWO)))
    eval_batch_size: int = _of(_COUNT)
    checkpoint_seconds: float = _of(Number(0, 1e9))
    profile: str | None = _of(Either(Path()))
    cost: CostOptions
    data: DataOptions
    train: Recipe
    furs: FurOptions
    reallocate: ReallocateOptions
    search: SearchOptions
    response: ResponseOptions
    prune: PruneOptions
    kd: KdOptions
    final: FinalOptions

    @property
    def tells_depths(self) -> bool:
        """Whether what a run writes of a vector has its blocks in each stage."""
        return self.search.blocks or self.depths is not None


def _kinds(of: type, prefix: str = "") -> Iterator[tuple[str, Kind]]:
    hints = get_type_hints(of)
    for field in dataclasses.fields(of):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from _kinds(hints[field.name], f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", field.metadata["kind"]


# By full name, as "train.epochs".
OPTIONS: dict[str, Kind] = dict(_kinds(Options))
FITTED = tuple(option for option, kind in OPTIONS.items() if isinstance(kind, Fitted))


def check_option(option: str, value: Any, name: str | None = None) -> None:
    """Raises ConfigError, by `name` or the option's own, where it can't have the value."""
    kind = OPTIONS[option]
    if not kind.allows(value):
        raise ConfigError(f"{name or option}={_short(value)} must be {kind}")
    resolved(option, value)


def resolved(option: str, value: Any) -> Any:
    """The value, with an absolute path where the option is one.

    Raises:
      ConfigError: it is no path of this machine.
    """
    kind = path_kind(option)
    if kind is None or value is None or value in kind.words:
        return value
    if isinstance(kind, DataName):
        return paths.resolve_data(value, option)
    return paths.resolve(value, f"{option}=")


def path_kind(option: str) -> Path | None:
    """The kind of an option that is a path; None of others."""
    kind = OPTIONS.get(option)
    kind = kind.kind if isinstance(kind, Either) else kind
    return kind if isinstance(kind, Path) else None


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an int of more digits than Python prints
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:60]}...{text[-15:]}"
