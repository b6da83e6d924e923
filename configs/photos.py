"""A small ResNet on your own photos, from a few dozen to some thousands; sized for 2 CPU cores.

    python -m furs_jax.main --config=configs/photos.py --config.data.name=folder:DIR --workdir=W

reads DIR/train/CLASS/*.jpg and DIR/val/CLASS/*.jpg (extra `images`). Without val, or of
DIR/CLASS/*.jpg, about a fifth of the images is held out and tested on, and a line says so. Arrays
are read from npz:FILE, see furs_jax/data/arrays.py. Batch sizes, epochs and the search split fit
the number of images by the rules of furs_jax/jobs/fitting.py.

Measured on 2 cores of a CPU, 600 photos of 480x360 pixels to train on and 200 to test on (digits
drawn over scikit-learn's two photos, 10 classes), 3 final seeds: 63 min beside much other work, of
which 10 min were its own on the processor; top-1 of the original 88.17 ± 2.59 %, of the searched
network 86.50 ± 6.45 % (the difference is within noise).
"""

from .default import adapt, set_width
from .default import get_config as default


def get_config(argument: str = ""):
    config = default()
    config.network = "resnet18"
    set_width(config, 0.25)
    config.data.name = "folder:photos"
    config.data.image_size = 64
    config.data.min_scale = 0.3
    config.data.search_fraction = "auto"
    for recipe in (config.train, config.final.train):
        recipe.epochs = recipe.batch_size = "auto"
        recipe.learning_rate = 0.05
        recipe.crop_margin = 0
    config.search.rounds = 4
    config.search.warm_start = True
    config.search.warm_epochs = "auto"
    config.furs.images = 500
    config.furs.batch_size = 32
    config.eval_batch_size = 64
    config.final.seeds = 3
    return adapt(config, argument)
