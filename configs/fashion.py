"""ResNet-14 of 5.0 MMACs on Fashion-MNIST (28x28), from the files of a Debian package.

apt-get install dataset-fashion-mnist
python -m furs_jax.main --config=configs/fashion.py --workdir=runs/fashion

Measured on 2 cores of a CPU, 5 final seeds: 75 min beside other work; top-1 of the original 88.91
± 0.15 %, of the searched network 89.11 ± 0.45 % (the difference is within noise).
"""

from configs.default import adapt
from configs.default import get_config as default


def get_config(argument: str = ""):
    config = default()
    config.network = "resnet14_cifar"
    config.width_multiplier = 0.5
    config.data.name = "idx:/usr/share/datasets/fashion-mnist"
    config.train.epochs = 3
    config.final.train.epochs = 3
    for recipe in (config.train, config.final.train):
        recipe.crop_margin = 2
    config.furs.images = 3000
    config.furs.batch_size = 32
    config.final.seeds = 5
    return adapt(config, argument)
