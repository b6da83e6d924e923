"""Names of sites and of whatever else, as short as a figure has room for."""

import re
from collections.abc import Sequence

from furs_jax.run.text import printable

MINUS = "\N{MINUS SIGN}"
_LONGEST_NAME = 24  # letters of a site's name


def short_name(name: str) -> str:
    """ "stage2_block1_conv2" as "2.1.2", "stage2_block1_expand" as "2.1.expand"."""
    name = re.sub(r"(stage|block|layer|conv)_?(?=\d)", "", printable(name)).replace("_", ".")
    return shortened(name, _LONGEST_NAME)


def short_names(names: Sequence[str]) -> list[str]:
    return [short_name(name) for name in names]


def site_label(names: Sequence[str]) -> str:
    """What an axis of sites with such short names is called."""
    staged = all(re.fullmatch(r"\d+\.\d+\.\w+", name) for name in names)
    return "site (stage.block.layer)" if staged else "site"


def shortened(text: str, most: int) -> str:
    """At most so many letters, the first and the last."""
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"
