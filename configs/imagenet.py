"""The paper's ImageNet networks (Chen et al., CVPR 2020, table 4), with its recipe.

    python -m furs_jax.main --config=configs/imagenet.py:mnasnet --workdir=runs/mnasnet

`ROWS` names them; configs/r18.py holds the recipe and says what the data need. Accuracy and time
here: not measured; ":mnasnet,smoke" runs a few steps on random images of 64x64 pixels.

Published, original to searched: r18 70.31 to 71.22 % at 1,814 MMACs, r18_0.8x to 69.41 % at 1,170,
with distillation (r18_0.8x_kd) to 71.00 %, mnasnet 74.21 to 74.88 % at 312. EfficientNet-B0 is not
in the paper.
"""

from . import r18
from .default import choose, set_width

ROWS = {  # network, width multiplier
    "r18": ("resnet18", 1.0),
    "r18_0.8x": ("resnet18", 0.8),
    "r18_0.8x_kd": ("resnet18", 0.8),  # taught by the r18 that runs/r18 has trained
    "mnasnet": ("mnasnet_a1", 1.0),
    "efficientnet": ("efficientnet_b0", 1.0),
}


def get_config(argument: str = ""):
    row, rest = choose(argument, ROWS)
    config = r18.get_config(rest)
    config.network, width = ROWS[row]
    set_width(config, width)
    if row.endswith("_kd"):
        config.kd.teacher = "original" if rest else "runs/r18/checkpoints/final_original_0"
        config.kd.width_multiplier = 1.0
    return config
