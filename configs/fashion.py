"""Small networks of each family on Fashion-MNIST (28x28), from the files of a Debian package.

    apt-get install dataset-fashion-mnist
    python -m furs_jax.main --config=configs/fashion.py --workdir=runs/fashion
    python -m furs_jax.main --config=configs/fashion.py:densenet16 --workdir=runs/fashion_densenet

`ROWS` names them, the first is the default.

Measured on 2 cores of a CPU, 5 final seeds, resnet14 (5.0 MMACs): 75 min beside other work; top-1
of the original 88.91 ± 0.15 %, of the searched network 89.11 ± 0.45 % (the difference is within
noise). At 14x14: plain14_14px 83.43 ± 0.52 (10 seeds) and 83.42 ± 0.60. From equal widths,
--config.channels="(12,)", start (10 seeds) and searched: plain14_14px 81.84 ± 0.44 and 83.30 ± 0.49
(10), resnet14_14px 84.48 ± 0.34 and 85.34 ± 0.70. docs/RESULTS.md says on which machines, and has
the controls. The others: not measured.
"""

from .default import adapt, choose, set_width
from .default import get_config as default

ROWS = {  # network, width multiplier, fewest channels, pool
    "resnet14": ("resnet14_cifar", 0.5, 4, 1),  # 5.0 MMACs
    "plain14": ("plain14_cifar", 0.5, 4, 1),  # 5.0
    "densenet16": ("densenet16_cifar", 0.45, 2, 1),  # 5.6, layers of 5 channels
    "pyramidnet14": ("pyramidnet14_cifar", 0.5, 4, 1),  # 3.9
    "mnasnet": ("mnasnet_cifar", 0.4, 4, 1),  # 4.5
    "resnet14_14px": ("resnet14_cifar", 0.5, 4, 2),  # 1.38
    "plain14_14px": ("plain14_cifar", 0.5, 4, 2),  # 1.38
}


def get_config(argument: str = ""):
    row, rest = choose(argument, ROWS)
    config = default()
    config.network, width, config.reallocate.min_channels, pool = ROWS[row]
    set_width(config, width)
    config.data.name = "idx:/usr/share/datasets/fashion-mnist"
    config.data.pool = pool
    config.train.epochs = 3
    config.final.train.epochs = 3
    for recipe in (config.train, config.final.train):
        recipe.crop_margin = 2
    config.furs.images = 3000
    config.furs.batch_size = 32
    config.final.seeds = 5
    if pool > 1:  # a search of minutes
        config.cpu_devices = 1
        config.search.rounds = 6
        config.search.warm_start = True
    return adapt(config, rest)
