"""Every row of the paper's CIFAR-100 table (Chen et al., CVPR 2020), with its recipe.

    python -m furs_jax.main --config=configs/cifar100.py:r32 --workdir=runs/r32

`ROWS` names them. Reads CIFAR-100 through TFDS; the error message says how to prepare it. Accuracy
and time here: not measured (CIFAR was not at hand); ":r32,smoke" runs on random images.

Published, original to searched: r20 69.52 to 71.57 %, r32 72.57 to 74.14, r56 74.90 to 76.15, r110
75.68 to 76.98, r20_2x 75.60 to 76.87, r20_4x 78.84 to 79.51, plain20 65.62 to 68.89, densenet40
76.32 to 76.95, pyramidnet20 66.58 to 71.53.
"""

from . import r20_cifar
from .default import choose, set_width

ROWS = {  # network, width multiplier
    "r20": ("resnet20_cifar", 1.0),
    "r32": ("resnet32_cifar", 1.0),
    "r56": ("resnet56_cifar", 1.0),
    "r110": ("resnet110_cifar", 1.0),
    "r20_2x": ("resnet20_cifar", 2.0),
    "r20_4x": ("resnet20_cifar", 4.0),
    "plain20": ("plain20_cifar", 1.0),
    "densenet40": ("densenet40_cifar", 1.0),
    "pyramidnet20": ("pyramidnet20_cifar", 1.0),
}


def get_config(argument: str = ""):
    row, rest = choose(argument, ROWS)
    config = r20_cifar.get_config(rest)
    config.network, width = ROWS[row]
    set_width(config, width)
    if rest == "smoke":
        config.data.name = "random:32x32x3:100:512"
        config.data.search_fraction = 0.25
    return config
