"""Small networks on 156 characters as the fonts of Debian packages draw them (16x16).

    bash launch/run.sh glyphs runs/glyphs_data  # first says which packages to install
    python -m furs_jax.main --config=configs/glyphs.py --workdir=runs/glyphs
    python -m furs_jax.main --config=configs/glyphs.py:mnasnet --workdir=runs/glyphs_mnasnet

`ROWS` names them, the first is the default. The packages are listed in furs_jax/data/fonts.py.
With those of Debian 12: 104,974 images of 674 faces (175 families) to train on, 26,120 of 168 faces
(39 families) to test on. FURs are measured on the last tenth of the training images, of families
that the rounds do not train on (but for the one that the cut may part).

Measured on one core of a CPU beside much other work, one seed (--config.mode=train
--config.final.seeds=1), top-1 on the test split: resnet14 after 6 epochs 90.5 %, in 7 min (36 s for
the first epoch). Searches, plain14 and mnasnet: not measured.
"""

from .default import adapt, choose, set_width
from .default import get_config as default

ROWS = {  # network, width multiplier, fewest channels
    "resnet14": ("resnet14_cifar", 0.5, 4),  # 1.65 MMACs, 8 to 32 channels
    "plain14": ("plain14_cifar", 0.5, 4),  # 1.65
    "mnasnet": ("mnasnet_cifar", 0.4, 4),  # 1.49
}


def get_config(argument: str = ""):
    row, rest = choose(argument, ROWS)
    config = default()
    config.network, width, config.reallocate.min_channels = ROWS[row]
    set_width(config, width)
    config.data.name = "idx:runs/glyphs_data"
    config.data.search_split = "last"
    config.train.epochs = 2
    config.final.train.epochs = 6
    for recipe in (config.train, config.final.train):
        recipe.flip = False  # d is not b
        recipe.crop_margin = 1
    config.furs.images = 3000
    config.furs.batch_size = 32
    config.final.seeds = 5
    config.search.rounds = 6
    config.search.warm_start = True
    config.cpu_devices = 1
    return adapt(config, rest)
