"""ResNet-20 on CIFAR-100 with the paper's recipe (Chen et al., CVPR 2020).

    python -m furs_jax.main --config=configs/r20_cifar.py --workdir=runs/r20_cifar

Reads CIFAR-100 through TFDS; the error message says how to prepare it. Published: 69.52 % to
71.57 % at 40 MMACs. Accuracy and time here: not measured (CIFAR was not at hand).
"""

from .default import adapt
from .default import get_config as default


def get_config(argument: str = ""):
    config = default()
    config.network = "resnet20_cifar"
    config.data.name = "tfds:cifar100"
    config.data.search_split = "last"
    config.final.seeds = 3
    return adapt(config, argument)
