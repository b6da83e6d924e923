"""Images as arrays: given by the caller, or in a file of np.savez.

Names, of which the first that are there are taken:

- `images` and `labels`; or those to train on, `train_images` and `train_labels`, and those to test
  on, `test_images` and `test_labels`; or, as Keras has them, `x_train`, `y_train`, `x_test` and
  `y_test`. Without images to test on, about a fifth of the others is held out, and a line says so.
- `class_names`, which may be left out: str, shape (K,), in order of the labels.

Images are uint8, shape (N, H, W, C) or (N, H, W); labels are whole numbers from 0, shape (N,) or
(N, 1).
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from furs_jax.data.dataset import Images, Split
from furs_jax.data.holdout import hold_out_test
from furs_jax.errors import DataError
from furs_jax.options.given import Given

Arrays = Mapping[str, np.ndarray]

_TRAIN = (("images", "labels"), ("train_images", "train_labels"), ("x_train", "y_train"))
_TEST = (("test_images", "test_labels"), ("x_test", "y_test"))
_CLASSES = "class_names"
NAMES = (*sum((*_TRAIN, *_TEST), ()), _CLASSES)
_SHORT = {2: _TRAIN[0], 4: (*_TRAIN[1], *_TEST[0])}


def images_of(arrays: Arrays, name: str) -> Images:
    """The data set that arrays make.

    Args:
      arrays: by the names above; others are not looked at.
      name: of the data set, for messages.

    Raises:
      DataError: arrays are missing, or of another kind; the message says which.
    """
    pairs = [next((p for p in known if arrays.keys() & {*p}), None) for known in (_TRAIN, _TEST)]
    if pairs[0] is None:
        raise DataError(
            f"{name} has no images and labels by names that are known; it has "
            f"{', '.join(map(repr, arrays)) or 'nothing'}: np.savez(FILE, images=..., labels=...)"
        )
    train, *tests = (_split(arrays, pair, name) for pair in pairs if pair)
    names = _class_names(arrays, name)
    classes = len(names) or int(train.labels.max()) + 1
    if classes > len(train.labels):
        raise DataError(
            f"{name} has {len(train.labels):,} images to train on, and labels up to "
            f"{classes - 1:,}; labels count the classes from 0: np.unique(labels, "
            "return_inverse=True)[1]"
        )
    for split in (train, *tests):
        wrong = split.labels[split.labels >= classes]
        if len(wrong):
            raise DataError(f"{name} has {classes} classes, and the label {wrong[0]} is beyond")
    if not tests:
        shown = [f"class {word!r}" for word in names]
        return Images(*hold_out_test(name, train, shown), classes, names)
    (test,) = tests
    if test.image_shape != train.image_shape:
        raise DataError(f"{name} has images of {train.image_shape} and of {test.image_shape}")
    unknown = np.setdiff1d(test.labels, train.labels)
    if len(unknown):
        raise DataError(f"{name} tests on the class {unknown[0]}, of which no training image is")
    return Images(train, test, classes, names)


def given_data(data: Arrays | Sequence[np.ndarray]) -> Given:
    """What a caller gives as data, named by a digest of it.

    Args:
      data: arrays by the names above, or in order: images and labels, perhaps those to test on.

    Raises:
      DataError: it is something else, or see `images_of`.
    """
    if not isinstance(data, Mapping):
        if len(data) not in _SHORT:
            raise DataError(
                f"data={type(data).__name__} of {len(data)} parts must be (images, labels), "
                "(train_images, train_labels, test_images, test_labels), or a dict of such names"
            )
        data = dict(zip(_SHORT[len(data)], data, strict=True))
    if unknown := [key for key in data if key not in NAMES]:
        raise DataError(f"data has {unknown[0]!r}, which is none of {', '.join(NAMES)}")
    arrays = {key: np.asarray(value) for key, value in data.items()}
    images = images_of(arrays, "data")
    digest = hashlib.sha256()
    for split in (images.train, images.test):
        for array in split:
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array))
    digest.update(repr(images.class_names).encode())
    count = len(images.train.labels) + len(images.test.labels)
    shape = "x".join(map(str, (count, *images.train.image_shape)))
    return Given(f"{shape}:{digest.hexdigest()[:16]}", images)


def _split(arrays: Arrays, pair: Sequence[str], name: str) -> Split:
    if missing := [key for key in pair if key not in arrays]:
        (there,) = {*pair} - {*missing}
        raise DataError(f"{name} has {there}, and no {missing[0]} beside it")
    images, labels = (arrays[key] for key in pair)
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or not images.size:
        raise DataError(
            f"{name}: {pair[0]} must be uint8 of the shape (N, H, W, C) or (N, H, W), 0 for black "
            f"and 255 for white, not {images.dtype} of {images.shape}"
        )
    images = images[..., None] if images.ndim == 3 else images
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DataError(
            f"{name}: {pair[1]} must be whole numbers of the shape (N,), not {labels.dtype} of "
            f"{labels.shape}"
        )
    if len(labels) != len(images):
        raise DataError(f"{name} has {len(images):,} {pair[0]} and {len(labels):,} {pair[1]}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= 1 << 31:
        raise DataError(f"{name}: {pair[1]} count the classes from 0; they are {low} to {high}")
    return Split(images, labels.astype(np.int32))


def _class_names(arrays: Arrays, name: str) -> tuple[str, ...]:
    if _CLASSES not in arrays:
        return ()
    names = arrays[_CLASSES]
    if names.dtype.kind != "U" or names.ndim != 1 or not names.size:
        raise DataError(
            f"{name}: {_CLASSES} must be texts of the shape (K,), not {names.dtype} of "
            f"{names.shape}: np.array(['cat', 'dog'])"
        )
    if len(set(names)) < len(names):
        raise DataError(f"{name}: {_CLASSES} has one name twice")
    return tuple(map(str, names))
