"""Time of a training step: PyTorch's over this project's, for the same networks on this CPU.

    pip install -e . torch
    python benchmarks/torch_step.py [NAME...]        # taskset -c 0 for one core

With GLIBC_TUNABLES=glibc.malloc.hugetlb=1 before it, both get large pages, as this project's
commands ask for by themselves, and both gain.

Both train on the same batch, float32, by SGD with momentum and weight decay on cross-entropy.
PyTorch is eager, channels-last, and compiled by torch.compile where that works. Ours is the step of
a run, with its gates, as one program and as two; both variants and PyTorch take turns, so that
other work on the machine meets all alike, and medians are given. Networks have the same layers: the
benchmark stops unless both count as many parameters.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from furs_jax.data.dataset import Dataset, Split
from furs_jax.machine.cores import usable_cores
from furs_jax.machine.devices import set_up
from furs_jax.networks import Network, get_network
from furs_jax.options.schema import ONE, TWO, Recipe
from furs_jax.run.tables import format_table
from furs_jax.training.step import replicated, shard
from furs_jax.training.trainer import Task, make_trainer, takes_two_programs

BATCH, CLASSES = 128, 10
# name -> network, width multiplier, shape of the images
CASES = {
    "resnet20": ("resnet20_cifar", 1.0, (32, 32, 3)),
    "resnet14": ("resnet14_cifar", 0.5, (14, 14, 1)),
    "mnasnet": ("mnasnet_cifar", 0.4, (28, 28, 1)),
}
RECIPE = Recipe(
    epochs=200, batch_size=BATCH, learning_rate=0.1, end_learning_rate=1e-3, warmup_epochs=0.0,
    momentum=0.9, nesterov=False, weight_decay=3e-4, label_smoothing=0.0, dropout=0.05,
    dropout_by_epoch=True, dropout_by_depth=True, crop_margin=0, flip=False,
)  # fmt: skip


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Module:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Site(nn.Module):
    """What follows a searchable layer: drops whole channels at `rate`, in evaluation, too."""

    rate = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.dropout2d(x, self.rate, training=True) if self.rate else x


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.first, self.site1 = conv_bn(inputs, outputs, 3, stride), Site()
        self.second, self.site2 = conv_bn(outputs, outputs, 3), Site()
        self.stride, self.wider = stride, outputs - inputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.site2(self.second(self.site1(functional.relu(self.first(x)))))
        if self.stride > 1:
            x = functional.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
        return functional.relu(functional.pad(x, (0, 0, 0, 0, self.wider, 0)) + y)


class MBConv(nn.Module):
    def __init__(self, inputs: int, middle: int, outputs: int, kernel: int, stride: int, se: int):
        super().__init__()
        self.expand = conv_bn(inputs, middle, 1) if middle != inputs else None
        self.depthwise = conv_bn(middle, middle, kernel, stride, middle)
        self.project = conv_bn(middle, outputs, 1)
        self.squeeze = nn.Linear(middle, se) if se else None
        self.excite = nn.Linear(se, middle) if se else None
        self.shortcut = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.expand(x)) if self.expand else x
        y = functional.relu(self.depthwise(y))
        if self.squeeze:
            weights = self.excite(functional.relu(self.squeeze(y.mean((2, 3)))))
            y = y * torch.sigmoid(weights)[:, :, None, None]
        y = self.project(y)
        return x + y if self.shortcut else y


class Pooled(nn.Module):
    """Blocks, then the mean over positions and a dense layer."""

    def __init__(self, *layers: nn.Module, width: int):
        super().__init__()
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(x).mean((2, 3)))


def resnet(depth: int, width: float, inputs: int) -> nn.Module:
    """The CIFAR ResNet of depth 6n+2, shortcuts pooled and padded with zeros."""
    stem, *stages = (int(width * c) for c in (16, 16, 32, 64))
    layers: list[nn.Module] = [conv_bn(inputs, stem, 3), nn.ReLU()]
    last = stem
    for number, outputs in enumerate(stages):
        for index in range((depth - 2) // 6):
            layers.append(BasicBlock(last, outputs, 2 if number and not index else 1))
            last = outputs
    return Pooled(*layers, width=last)


def mnasnet(width: float, inputs: int) -> nn.Module:
    """MnasNet's blocks at a size for small images: `mnasnet_cifar` of this project."""
    # kernel, expansion, outputs, repeats, first stride, squeeze and excitation
    stages = ((3, 1, 16, 1, 1, 0), (3, 6, 24, 2, 1, 0), (5, 3, 40, 2, 2, 1), (3, 6, 80, 2, 2, 1))
    last, full = int(32 * width), 32
    layers: list[nn.Module] = [conv_bn(inputs, last, 3), nn.ReLU()]
    for kernel, expansion, outputs, repeats, stride, squeezes in stages:
        for index in range(repeats):
            middle = int(width * expansion * full) if expansion > 1 else last
            se = squeezes and max(1, int(width * (full // 4)))
            block = MBConv(
                last, middle, int(width * outputs), kernel, stride * (not index) or 1, se
            )
            block.shortcut = index > 0
            layers.append(block)
            last, full = int(width * outputs), outputs
    head = int(320 * width)
    return Pooled(*layers, conv_bn(last, head, 1), nn.ReLU(), width=head)


def networks(case: str) -> tuple[Network, nn.Module]:
    """Ours and PyTorch's, checked to have as many parameters."""
    name, width, shape = CASES[case]
    net = get_network(name, width, CLASSES, image_shape=shape)
    if name == "mnasnet_cifar":
        model = mnasnet(width, shape[2])
    else:
        model = resnet(int(name.removeprefix("resnet").removesuffix("_cifar")), width, shape[2])
    theirs = sum(parameter.numel() for parameter in model.parameters())
    if net.params(net.channels) != theirs:
        raise SystemExit(f"{case}: {net.params(net.channels)} parameters of ours, {theirs} there")
    return net, model.to(memory_format=torch.channels_last)


def noise(shape: tuple[int, int, int], count: int) -> Split:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *shape), np.uint8)
    return Split(images, rng.integers(0, CLASSES, count).astype(np.int32))


def as_tensors(split: Split) -> tuple[torch.Tensor, torch.Tensor]:
    """Images in (-2, 2), channels-last, and labels."""
    images = torch.from_numpy((split.images.astype(np.float32) / 255 - 0.5) / 0.25)
    return images.permute(0, 3, 1, 2), torch.from_numpy(split.labels).long()


def task_of(net: Network, split: Split) -> Task:
    channels = net.image_shape[2]
    dataset = Dataset("noise", split, split, split, CLASSES, (0.5,) * channels, (0.25,) * channels)
    return Task(net, dataset, tuple(jax.devices()), "float32", BATCH)


def their_step(model: nn.Module, split: Split) -> Callable[[], None]:
    images, labels = as_tensors(split)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=3e-4)
    model.train()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def our_step(task: Task, split: Split, programs: str) -> Callable[[], None]:
    task = task._replace(step_programs=programs)
    trainer = make_trainer(task, task.net.channels, RECIPE, split)
    state = replicated(trainer.start(0), task.devices)
    batch = shard({"image": split.images, "label": split.labels}, len(task.devices))

    def step() -> None:
        nonlocal state
        state, _ = trainer.step(state, batch)
        jax.block_until_ready(state)

    return step


def in_turn(runs: dict[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """Median seconds of each; the first call, which may compile, is left out."""
    for name in list(runs):
        try:
            runs[name]()
            runs[name]()
        except Exception as error:  # torch.compile has many of its own
            if name != "torch.compile":
                raise
            print(f"{name} does not work here: {str(error).splitlines()[0]}")
            del runs[name]
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(turns):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cases", nargs="*", metavar="NAME", help=f"of {', '.join(CASES)}")
    parser.add_argument("--turns", type=int, default=15)
    given = parser.parse_args()
    set_up(batch_sizes=[BATCH])
    torch.set_num_threads(usable_cores())
    rows = []
    for case in given.cases or CASES:
        net, model = networks(case)
        split = noise(net.image_shape, BATCH)
        task = task_of(net, split)
        compiled = their_step(torch.compile(model), split)
        seconds = in_turn(
            {
                "torch": their_step(model, split),
                "torch.compile": compiled,
                ONE: our_step(task, split, ONE),
                TWO: our_step(task, split, TWO),
            },
            given.turns,
        )
        taken = TWO if takes_two_programs(task, net.channels, BATCH) else ONE
        best = min(seconds[name] for name in ("torch", "torch.compile") if name in seconds)
        times = [
            f"{1e3 * seconds[name]:.1f}" if name in seconds else "-"
            for name in ("torch", "torch.compile", ONE, TWO)
        ]
        ratios = [f"{seconds['torch'] / seconds[name]:.2f}" for name in (ONE, TWO)]
        rows.append((case, *times, *ratios, taken, f"{best / seconds[taken]:.2f}"))
    header = (
        "step, ms", "PyTorch", "compiled", "one program", "two", "PyTorch/one", "PyTorch/two",
        "a run takes", "best PyTorch/that",
    )  # fmt: skip
    print(format_table(header, rows))
    print(f"batch {BATCH}, {usable_cores()} cores, {len(jax.devices())} JAX devices")


if __name__ == "__main__":
    main()
