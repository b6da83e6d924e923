"""Images per second from a folder of photos: this project's input against torchvision's.

    pip install -e .[images] && pip install torch torchvision
    python benchmarks/photos.py DIR
    python benchmarks/torchvision_input.py DIR

Both decode the same files, cut random resized crops of 224x224 pixels, flip half of them and give
batches of 128 in uint8, with two workers. torchvision is also timed as most recipes have it, with
the normalisation to float32 that this project does on the device. They take turns, so that other
work on the machine meets all alike.
"""

import argparse
import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator

import cv2
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from furs_jax.data import Reading, load_images
from furs_jax.data.batches import training_batches
from furs_jax.machine.cores import usable_cores

SIZE, BATCH = 224, 128


def ours(folder: str, workers: int, seed: int) -> Iterator[object]:
    """uint8 (128, 224, 224, 3), flipped here, though the project flips on the device."""
    split = load_images(f"folder:{folder}", reading=Reading(SIZE, workers=workers)).train
    with contextlib.closing(training_batches(split, seed, range(10**6), BATCH)) as batches:
        for batch in batches:
            for image in batch["image"][: BATCH // 2]:  # in a random order anyway
                cv2.flip(image, 1, dst=image)
            yield batch


def torchvision(folder: str, workers: int, seed: int, normalised: bool) -> Iterator[object]:
    del seed
    end = [transforms.PILToTensor()]
    if normalised:
        end = [
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    transform = transforms.Compose(
        [transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip(), *end]
    )
    files = datasets.ImageFolder(os.path.join(folder, "train"), transform)
    loader = DataLoader(
        files, BATCH, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=True
    )
    while True:
        yield from loader


def images_per_second(batches: Iterator[object], count: int, warm_up: int = 3) -> float:
    """Of `count` batches, after the first ones; the readers are still busy at the end."""
    with contextlib.closing(batches):
        for _ in range(warm_up):
            next(batches)
        start = time.perf_counter()
        for _ in range(count):
            next(batches)
        return count * BATCH / (time.perf_counter() - start)


def main(folder: str, workers: int, repeats: int, count: int) -> None:
    pipelines: dict[str, Callable[[int], Iterator[object]]] = {
        "furs_jax": lambda seed: ours(folder, workers, seed),
        "torchvision, uint8": lambda seed: torchvision(folder, workers, seed, False),
        "torchvision, normalised": lambda seed: torchvision(folder, workers, seed, True),
    }
    found: dict[str, list[float]] = {name: [] for name in pipelines}
    for seed in range(repeats):
        for name, pipeline in pipelines.items():
            found[name].append(images_per_second(pipeline(seed), count))
    print(f"{workers} workers, {usable_cores()} cores, load {os.getloadavg()[0]:.1f}")
    for name, rates in found.items():
        ratios = [a / b for a, b in zip(found["furs_jax"], rates, strict=True)]
        print(
            f"{name:24} {statistics.median(rates):7.0f} images/s "
            f"({', '.join(f'{rate:.0f}' for rate in rates)}); furs_jax is "
            f"{statistics.median(ratios):.2f} times as fast"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--count", type=int, default=10, help="batches timed at a time")
    main(**vars(parser.parse_args()))
