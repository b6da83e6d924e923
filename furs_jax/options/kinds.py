"""Kinds of values: what an option may be, and how the command line spells it."""

import ast
import dataclasses
import numbers
from typing import Any, Protocol


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

    def __str__(self) -> str:
        return "".join(f"{word!r} or " for word in self.words) + "a path"


class DataName(Path):
    """The name of a data set, which may have a folder in it."""

    def __str__(self) -> str:
        return "the name of a data set"


@dataclasses.dataclass(frozen=True)
class Plugin(Choice):
    """One of some files, or a class of one's own."""

    def allows(self, value: Any) -> bool:
        return super().allows(value) or (isinstance(value, str) and ":" in value)

    def __str__(self) -> str:
        return f"{super().__str__()}, or your own as my_module:MyClass"


class Widths:
    """Channels, of each site or one number for all."""

    def allows(self, value: Any) -> bool:
        return (
            isinstance(value, tuple | list)
            and len(value) > 0
            and all(CHANNELS.allows(width) for width in value)
        )

    def parse(self, text: str) -> Any:
        value = ast.literal_eval(text.strip())
        return tuple(value) if isinstance(value, tuple | list) else (value,)

    def __str__(self) -> str:
        return f"widths as in '(8, 16)' or 12, each {CHANNELS}"


class Depths(Widths):
    """Blocks, of each stage."""

    def __str__(self) -> str:
        return f"numbers of blocks as in '(1, 3, 2)', each {CHANNELS}"


class Patterns(Name):
    """Names of sites, or patterns of names."""

    def __str__(self) -> str:
        return "names of sites or patterns, as in 'stem,stage3_*'"


class SiteWidths:
    """A width of all sites, or widths of those that names or patterns say."""

    def allows(self, value: Any) -> bool:
        if not isinstance(value, str):
            return CHANNELS.allows(value)
        try:
            return all(CHANNELS.allows(width) for _, width in named_widths(value))
        except ValueError:
            return False

    def parse(self, text: str) -> int | str:
        return int(text) if text.strip().isdecimal() else text

    def __str__(self) -> str:
        return f"widths as in 4 or '4,stage3_*=16', each {CHANNELS}"


def named_widths(value: int | str) -> list[tuple[str, int]]:
    """What a value of `SiteWidths` says, as [("*", 4), ("stage3_*", 16)]; later ones count.

    Raises:
      ValueError: a text says something else.
    """
    parts = (part.strip().rpartition("=") for part in str(value).split(","))
    return [(name.strip() or "*", int(width)) for name, _, width in parts]


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


@dataclasses.dataclass(frozen=True)
class Fitted(Either):
    """A number, or "auto", which stands for one that fits the data; config.json has that one."""

    word: str = "auto"


def whole(low: int, high: int) -> Number:
    return Number(low, high, whole=True)


def positive(high: float) -> Number:
    return Number(0, high, above=True)


MANY = 1_000_000  # far more than anything needs
CHANNELS = whole(1, 65_536)
