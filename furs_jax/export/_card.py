"""The model card beside an export: what it is, what it was trained on, and how good it is."""

import dataclasses
from typing import Any

from furs_jax.export import Format
from furs_jax.export._verify import Verification
from furs_jax.jobs.predicting import TrainedNetwork
from furs_jax.options.parse import of_record
from furs_jax.report.run_record import RunRecord
from furs_jax.report.table4 import comparison
from furs_jax.run.text import markdown

_LICENCE = (
    "TO BE FILLED IN by whoever passes this on. The weights follow from the images that they were "
    "trained on, whose licence may bind them."
)


def model_card(
    form: Format, name: str, found: TrainedNetwork, verified: Verification, told: str
) -> str:
    """The card, as Markdown; names are escaped.

    Args:
      form, name: the format, and what it is called.
      found, verified: the network, and what verifying it said.
      told: Markdown, of its training and its figures.
    """
    mean, std, shape, crop = found.preprocessing
    net, channels = found.net, found.channels
    facts = {
        "network": markdown(net.name),
        "widths of its searched layers": " ".join(map(str, channels)),
        "MACs of an image": f"{net.macs(channels):,}",
        "parameters": f"{net.params(channels):,}",
        "images": f"uint8, (N, {', '.join(map(str, shape))}), any N",
        "normalised inside": f"(image / 255 - mean) / std, mean {_short(mean)}, std {_short(std)}",
        "of other sizes": f"a square of {crop:g} of the shorter side, from the middle, resized",
        "outputs": f"float32 logits, (N, {len(found.classes)})",
        "classes, in order": ", ".join(map(markdown, found.classes)),
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
    parts = [
        f"# {markdown(net.name)} as {name}",
        "Written by `python -m furs_jax.export`.",
        f"| | |\n|---|---|\n{table}",
        f"## How to use it\n\nIn this folder:\n\n```python\n{form.usage.strip()}\n```",
        told,
        f"## Verified\n\nWhen it was written, {markdown(str(verified))}.",
        f"## Licence\n\n{_LICENCE}",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def training_story(run: RunRecord, trained: str, images: dict[str, int] | None) -> str:
    """What it was trained on, and the figures of the run.

    Args:
      run: of which it is.
      trained: which of its networks it is, "searched_0".
      images: how many each split has, where that is known.
    """
    config = of_record(run.config)
    counts = ", ".join(f"{what} {n:,}" for what, n in (images or {}).items())
    recipe = dataclasses.asdict(config.final.train)
    shown = ("epochs", "batch_size", "learning_rate", "weight_decay", "label_smoothing", "dropout")
    data, final = config.data, config.final
    lines = [
        "## What it was trained on\n",
        f"{markdown(short_name(run.data))}{f': {counts} images' if counts else ''}. The search "
        f"split ({data.search_fraction:g} of the training images, {data.search_split}, seed "
        f"{data.seed}) is what a search measures on"
        f"{', and is trained on in the end' if final.use_search_split else ''}; the test split is "
        "read once, for the figures below.\n",
        f"It is `{trained}` of its run, trained by: "
        + ", ".join(f"{key} {recipe[key]:g}" for key in shown)
        + ".\n",
        "## How good it is\n",
        comparison([run], published=False).markdown().strip(),
    ]
    return "\n".join(lines)


def short_name(data: str) -> str:
    """The name of a data set without the way to its folder, which is nobody else's."""
    kind, colon, argument = data.partition(":")
    return f"{kind}{colon}{argument.rstrip('/').rpartition('/')[2]}"


def _short(values: Any) -> str:
    return " ".join(f"{value:.4g}" for value in values)
