"""ResNet-18 on ImageNet with the paper's recipe (Chen et al., CVPR 2020).

    python -m furs_jax.main --config=configs/r18.py --workdir=runs/r18

Needs `pip install -e .[images,tfds]`. Reads ImageNet as TFDS prepares it (the error message says
how), or, with --config.data.name=folder:DIR, DIR/train/CLASS/*.JPEG and DIR/val/CLASS/*.JPEG.
Published: 70.31 % to 71.22 % at 1,814 MMACs. Accuracy and time here: not measured.

    python -m furs_jax.main --config=configs/r18.py:smoke --workdir=runs/r18_smoke

builds, compiles and trains the network for a few steps on random images of 64x64 pixels; to try a
folder of photos instead, add --config.data.name=folder:DIR --config.data.search_split=stratified
--config.data.image_size=64.
"""

from .default import adapt
from .default import get_config as default


def get_config(argument: str = ""):
    config = default()
    config.network = "resnet18"
    config.data.name = "tfds:imagenet2012"
    config.data.search_fraction = 50_000 / 1_281_167
    for recipe in (config.train, config.final.train):
        recipe.weight_decay = 4e-5
        recipe.dropout_by_depth = False
        recipe.crop_margin = 0
    config.train.epochs = 10
    config.train.batch_size = 512
    config.train.learning_rate = 0.2
    config.final.train.epochs = 90
    config.final.train.batch_size = 1024
    config.final.train.learning_rate = 0.4
    config.final.train.label_smoothing = 0.1
    config.final.train.warmup_epochs = 5.0
    config.furs.base_drop_rate = 0.2
    config.reallocate.num_layers_decay = 0.0
    config.reallocate.step = 0.1
    config.reallocate.step_decay = 0.0
    config = adapt(config, argument)
    if argument == "smoke":
        config.data.name = "random:64x64x3:1000:64"
        config.data.search_fraction = 0.25
        config.data.search_split = "last"
        config.eval_batch_size = config.furs.batch_size = 16
        config.train.batch_size = config.final.train.batch_size = 16
        config.final.train.warmup_epochs = 1.0
        config.final.seeds = config.furs.draws = 1
        config.search.rounds = 1
    return config
