"""Objects of the caller's, in place of what an option names."""

from typing import Any

PREFIX = "given:"  # that no name of a data set or a network begins with


class Given(str):
    """The name of an object, which it brings along; to files and messages it is a name.

    What is equal has the same name, and what isn't another one, as far as can be told.
    """

    value: Any

    def __new__(cls, name: str, value: Any) -> "Given":
        given = super().__new__(cls, f"{PREFIX}{name}")
        given.value = value
        return given

    def __deepcopy__(self, memo: dict) -> "Given":
        return self

    def __reduce__(self) -> tuple:
        return type(self), (self.removeprefix(PREFIX), self.value)
