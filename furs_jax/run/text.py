"""Text from a run's files, made harmless for each output: such a run may be somebody else's."""

import re
import textwrap
import unicodedata

_FORMULA = ("=", "+", "-", "@")  # how a spreadsheet knows one
_MARKDOWN = re.compile(r"[\\`*|$~\[\]]|(?<![^\W_])_|_(?![^\W_])")  # not the _ within a word
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def printable(text: str) -> str:
    """One line without control characters, which terminals obey and SVG can't hold.

    What can't be printed stands as its escape, as in "\\n" and "\\x1b".
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def wrapped(text: str, width: int) -> str:
    """Lines of at most so many letters, broken at spaces; what goes on is indented."""
    return "\n".join(
        "\n".join(
            textwrap.wrap(
                line,
                width,
                subsequent_indent="    ",
                break_long_words=False,
                break_on_hyphens=False,
                replace_whitespace=False,
            )
        )
        for line in text.split("\n")
    )


def markdown(text: str) -> str:
    """Text that means nothing in Markdown or HTML, in a table's cell too."""
    return _MARKDOWN.sub(r"\\\g<0>", printable(text)).translate(_ENTITIES)


def csv_text(text: str) -> str:
    """Text that no spreadsheet takes for a formula: what looks like one begins with a quote."""
    text = printable(text)
    first = unicodedata.normalize("NFKC", text).lstrip()[:1]
    return f"'{text}" if first in _FORMULA and first else text
