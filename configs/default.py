"""Every option, with its unit and meaning. Other files change only what differs.

    python -m furs_jax.main --config=configs/default.py --workdir=DIR

searches a CIFAR ResNet-8 on scikit-learn's digits. Any field can be given on the command line, as
in --config.train.epochs=20; None where that is its default. furs_jax/options/schema.py has the
ranges. Paths are relative to the folder that the command is called from. Accuracy and time: not
measured; configs/digits.py is the demo.
"""

import functools
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import ml_collections
from ml_collections import config_dict


def training() -> ml_collections.ConfigDict:
    """One training: the fields of `furs_jax.options.schema.Recipe`."""
    options = ml_collections.ConfigDict()
    _number_or_auto(options, "epochs", 200)
    _number_or_auto(options, "batch_size", 128)  # images, over all devices
    options.learning_rate = 0.15  # peak, for this batch size
    options.end_learning_rate = 1e-3  # of the cosine
    options.warmup_epochs = 0.0  # linear, from zero
    options.momentum = 0.9
    options.nesterov = False
    options.weight_decay = 3e-4  # L2, added to the gradient of every parameter
    options.label_smoothing = 0.0  # share of the target spread over all classes
    options.dropout = 0.05  # rate of SpatialDropout at the sites
    # Grow the rate linearly with the epoch; a training from weights is at the full rate
    options.dropout_by_epoch = True
    options.dropout_by_depth = True  # and with the site's depth
    options.crop_margin = 4  # pixels of zero padding for random crops; 0: no crop, as on disk
    options.flip = True  # random horizontal flips
    return options


def _number_or_auto(options: ml_collections.ConfigDict, name: str, value: float) -> None:
    """An option that may be "auto": a number that fits how many images there are, by the rules of
    furs_jax/jobs/fitting.py, is chosen when a run begins, and config.json has it."""
    options[name] = config_dict.placeholder(object)
    options[name] = value


def data() -> ml_collections.ConfigDict:
    """Images, and how they are split and read."""
    options = ml_collections.ConfigDict()
    # digits, idx:DIR, folder:DIR, npz:FILE (furs_jax/data/arrays.py says which arrays), tfds:NAME
    # or random:HxWxC:CLASSES:COUNT
    options.name = "digits"
    options.dir = config_dict.placeholder(str)  # of TFDS; None: ~/tensorflow_datasets
    # Of the training images, held out to measure FURs on
    _number_or_auto(options, "search_fraction", 0.1)
    options.search_split = "stratified"  # random in equal class shares, or "last": the last
    options.seed = 0  # of the stratified split
    # Images in memory are averaged over squares of so many pixels a side: 2 gives 14x14 for 28x28
    options.pool = 1
    # The rest is for images on disk: folder:DIR, and TFDS sets whose images differ in size.
    options.image_size = 224  # pixels, side of the crops
    options.min_scale = 0.08  # least share of the area in training's random resized crops
    options.eval_crop = 0.875  # share of the shorter side in evaluation's central crop
    options.workers = 0  # threads that read, in each process; 0: one for each core
    # Processes that read; 0: only this one. Threads share Python's lock, so that many cores may
    # need some (not measured)
    options.processes = 0
    options.prefetch = 2  # batches read ahead
    # An image that is damaged, or can't be used, stops the run, or "skip": counted, and in training
    # replaced by the next image
    options.on_corrupt = "raise"
    return options


def cost() -> ml_collections.ConfigDict:
    """What widths are counted in, and may cost."""
    options = ml_collections.ConfigDict()
    # What the budget is counted in, and utilised: "macs" of one image, "params",
    # "activation_memory" (bytes of a forward pass), "latency" (ms, measured on this device), files
    # in furs_jax/costs, or your own, "my_module:MyCost".
    options.resource = "macs"
    # What the search may spend of it. None: what the original network costs. Given, it sets the
    # original's uniform width, and width_multiplier must stay 1.
    options.budget = config_dict.placeholder(float)
    options.batch_size = 1  # images of a forward pass, where the resource depends on it
    # Of latency: what python -m furs_jax.bench latency wrote, a folder or its latency.json
    options.table = config_dict.placeholder(str)
    # What no vector of the search may exceed beside the budget, as in cost.limits.params=12e6. The
    # original network may: what it is compared with stays what it is.
    options.limits = ml_collections.ConfigDict()
    for resource in ("activation_memory", "latency", "macs", "params"):
        options.limits[resource] = config_dict.placeholder(float)
    return options


def furs() -> ml_collections.ConfigDict:
    """How FURs are measured."""
    options = ml_collections.ConfigDict()
    options.method = "dropout"  # measured by draws, or "fisher": to second order, one pass
    options.metric = "loss"  # what FURs rank by: "loss" or "accuracy"
    options.base_drop_rate = 0.05  # mean rate; each site loses the same of the cost
    options.draws = config_dict.placeholder(object)  # takes a number or a word
    # Gates drawn for each image and site, or "auto": until the sites to widen surely differ from
    # those to narrow, or more draws would not show it
    options.draws = 5
    options.max_draws = 50  # of "auto"
    options.noise = "bernoulli"  # or "gaussian"
    # Stratified draws, first order subtracted; False: the paper's independent draws
    options.variance_reduction = True
    options.fisher_labels = "empirical"  # true labels, or "sampled" from the prediction
    # Fisher FURs into metrics.jsonl after every so many epochs of a round, on one image for 40
    # trained on; 0: never
    options.every_epochs = 0
    options.images = 0  # of the search split to measure on, evenly spread; 0: all
    options.batch_size = 64  # images, over all devices; fewer at once where memory_gib says so
    # GiB on each device for the activations of all draws and sites, at most; a CPU takes less
    options.memory_gib = 4.0
    return options


def reallocate() -> ml_collections.ConfigDict:
    """How the next vector follows from the FURs."""
    options = ml_collections.ConfigDict()
    options.direction = "fur"  # or a control: "random" sites, "reversed" ranks
    options.num_layers = 6  # K: sites widened, and as many narrowed, in a round
    options.num_layers_decay = 0.5  # K falls by so much every round
    options.step = 0.15  # of a site's original width that it changes by
    # Of the width that it began with instead, where channels are given
    options.step_from_start = False
    options.step_decay = 0.01  # less for each place in the ranking
    # Sites that keep their width: names, as mode "describe" prints them, or patterns, separated by
    # commas: "conv1,stage3_*"
    options.fixed = config_dict.placeholder(str)
    # The narrowest and the widest that a site may get: a number, or by name or pattern,
    # "4,stage3_*=16", of which the last that fits counts. What is named is so in every method, the
    # number alone where channels are moved, not where filters are pruned.
    options.min_channels = config_dict.placeholder(object)  # takes a number or a text
    options.min_channels = 4
    options.max_channels = config_dict.placeholder(object)
    options.channel_multiple = 1  # widths are multiples of it: 8 suits tensor cores
    return options


def search() -> ml_collections.ConfigDict:
    """The rounds."""
    options = ml_collections.ConfigDict()
    options.rounds = 10
    # The vector after the last round, or "best": the trained one of the lowest search loss
    options.select = "last"
    options.warm_start = False  # rounds after the first go on from the last one's weights
    _number_or_auto(options, "warm_epochs", 1)  # then, of these rounds
    options.warm_learning_rate = 0.05  # then, the peak
    # Rounds without a lower search loss, after which the search goes back to the best network
    # with half the step; 0: never
    options.patience = 0
    # End when no two sites' FURs surely differ: equal ones are taken to differ in 5 % of cases
    options.stop_when_equal = False
    # Move whole blocks, too: after a round the stage whose last block gives most per MAC gets one
    # more, and that whose last block gives least loses it, where they surely differ
    options.blocks = False
    return options


def response() -> ml_collections.ConfigDict:
    """Of method "response", which trains vectors by config.train until no other training pays."""
    options = ml_collections.ConfigDict()
    options.max_trainings = 16
    # The gain that counts, as a share of what seeds differ by: where to know all about the widths
    # would gain less, in expectation, the search ends, and where the best do, the first ones stay
    options.least_gain = 0.1
    # How many of the first networks are trained by one program, each as wide as the widest; "auto":
    # 1 on CPU, elsewhere as many as the memory surely takes
    options.at_once = config_dict.placeholder(object)  # takes a number or a word
    options.at_once = "auto"
    return options


def prune() -> ml_collections.ConfigDict:
    """Of methods that begin with a larger network than the budget allows; others don't look."""
    options = ml_collections.ConfigDict()
    options.width_multiplier = 1.0  # of that network
    # How many times as wide a network is that is searched all at once; None: as the method's paper
    options.expand = config_dict.placeholder(float)
    options.penalty = 0.0  # lccl: weight in the loss of the MACs above the budget, as a share of it
    return options


def kd() -> ml_collections.ConfigDict:
    """Distillation, in final trainings."""
    options = ml_collections.ConfigDict()
    # "original": the run's own original network of the same seed; or a folder in a run's
    # checkpoints/, which teaches both networks. None: no distillation.
    options.teacher = config_dict.placeholder(str)
    options.network = config_dict.placeholder(str)  # of that folder; None: as config.network
    options.width_multiplier = config_dict.placeholder(float)  # likewise
    options.alpha = 0.9  # share of the teacher in the loss
    options.temperature = 4.0  # of both softmaxes
    return options


def final() -> ml_collections.ConfigDict:
    """The comparison at the end."""
    options = ml_collections.ConfigDict()
    options.seeds = 1  # trainings of the original and of the searched network
    # False: the searched network alone, as where another run of a sweep has the original
    options.original = True
    options.timed = True  # what an image takes each network on this device, measured in the end
    options.use_search_split = True  # train on the train and search splits together
    options.train = training()
    return options


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The options; `argument` "smoke" (configs/x.py:smoke) gives a run of about a minute."""
    config = ml_collections.ConfigDict()
    # "search", "train" (the given widths, by config.final), "evaluate" (the test split), "furs" (as
    # measured in a search), "describe" (the table of layers, without the data) or "predict" (the
    # classes of image files, or of folders of them, which follow the options).
    config.mode = "search"
    # How the widths are found: a file in furs_jax/methods, or your own, "my_module:MyMethod".
    config.method = "network_adjustment"
    # What trainings minimise: a file in furs_jax/objectives, or your own.
    config.objective = "cross_entropy"
    config.seed = 0  # of everything but the data's splits
    config.network = "resnet8_cifar"
    # Of the stem and all sites. What a config file sets is for the networks of this package: one of
    # your own, "my_module:MyNet", keeps its widths unless this is given.
    config.width_multiplier = 1.0
    # Blocks in each stage, as in "(1,3,2)": of networks whose stages may have other numbers than
    # theirs, docs/BLOCKS.md. None: the network's own.
    config.depths = config_dict.placeholder(tuple)
    # MACs of one image that the search may spend: config.cost.budget where the resource is MACs.
    config.flops_budget = config_dict.placeholder(float)
    # The widths to begin with, one for each site, or a single one for all. A search and its
    # benchmarks keep their proportions and meet the budget, so that any (12,) is equal widths;
    # mode "train" takes them as they are. None: the original's, or those of channels_from, the
    # result.json of another run.
    config.channels = config_dict.placeholder(tuple)
    config.channels_from = config_dict.placeholder(str)
    # Weights to begin with, and their widths: a folder in a run's checkpoints/. Of the first round,
    # or of mode "train"; what modes "evaluate" and "furs" look at. Mode "predict" takes a run's
    # folder and an export, too.
    config.init_from = config_dict.placeholder(str)
    # Of its layers whose size follows the number of classes: "load", or "fresh" initial weights, as
    # for fine-tuning on other classes than the checkpoint was trained for.
    config.init_head = "load"
    config.padding = "max"  # residual sums of unequal widths: "max" or "local"
    config.dtype = "auto"  # of the computation: bfloat16 on TPU and GPU, float32 on CPU
    config.cpu_devices = 0  # JAX devices on CPU; 0: as measured best, see best_cpu_devices
    # Programs that a training step is compiled as: "one", "two" (forward and backward pass; more
    # memory) or "auto", on CPU two where that was measured faster. Results differ in last digits.
    config.step_programs = "auto"
    config.eval_batch_size = 256  # images, over all devices; evaluation only
    # Save after an epoch when the last save is so long ago; within an epoch after a minute, too.
    config.checkpoint_seconds = 10.0
    # A folder for a trace of ten steps of the first training, for TensorBoard or Perfetto.
    config.profile = config_dict.placeholder(str)

    config.cost = cost()
    config.data = data()
    config.train = training()  # in each round
    config.furs = furs()
    config.reallocate = reallocate()
    config.search = search()
    config.response = response()
    config.prune = prune()
    config.kd = kd()
    config.final = final()
    return adapt(config, argument)


class _Operation(NamedTuple):
    """What a `FieldReference` computes its value by."""

    fn: Callable
    args: Sequence


def set_width(config: ml_collections.ConfigDict, width: float) -> None:
    """Sets the width multiplier of a config file, which networks of one's own don't follow.

    It is looked up when it is read, since the network may be given later; a value given for it
    takes its place.
    """
    network = config.get_ref("network")
    operation = _Operation(functools.partial(_width_of, width), (network,))
    config.width_multiplier = config_dict.FieldReference(1.0, op=operation)


def _width_of(width: float, given: float, network: str) -> float:
    return given if ":" in network else width


def adapt(config: ml_collections.ConfigDict, argument: str) -> ml_collections.ConfigDict:
    """Applies a config file's argument.

    Raises:
      ValueError: the argument is neither empty nor "smoke".
    """
    if argument not in ("", "smoke"):
        raise ValueError(f"unknown config argument {argument!r}; there is only 'smoke'")
    if argument == "smoke":
        config.search.rounds = 2
        config.response.max_trainings = 3
        config.train.epochs = 2
        config.final.train.epochs = 2
        config.final.seeds = 2
        config.furs.draws = 2
        config.furs.images = 256
    return config


def choose(argument: str, rows: Collection[str]) -> tuple[str, str]:
    """Splits the argument of a file of several networks, "ROW", "ROW,smoke" or "smoke".

    Returns:
      The row, the first one where none is named, and what is left for `adapt`.

    Raises:
      ValueError: there is no such row.
    """
    row, _, rest = argument.partition(",")
    if row in ("", "smoke"):
        row, rest = next(iter(rows)), row
    if row not in rows:
        raise ValueError(f"unknown config argument {row!r}; known are {', '.join(rows)}, smoke")
    return row, rest
