"""Pixels of any depth to 8 bits: converted where white is known, else refused."""

import numpy as np


class UnsupportedError(ValueError):
    """An image that may be sound, but is too large, or of a kind that can't be read for certain."""


def eight_bits(values: np.ndarray, bits: int = 16, black: bool = False) -> np.ndarray:
    """Pixel values as uint8.

    Booleans are black and white; unsigned 16-bit values lose their lower bits; floats count from 0
    (black) to 1 (white), as is usual; other integers hold 8-bit values, as NumPy's int32 often do.

    Args:
      bits: that the values of a uint16 array use: 12 of some cameras and microscopes.
      black: whether an array of them may end up black, as one of 8-bit values would.

    Raises:
      UnsupportedError: values lie outside that range, so that their white is unknown.
    """
    if values.dtype == np.uint8 or not values.size:
        return values.astype(np.uint8, copy=False)
    if values.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind not in "uif":
        raise UnsupportedError(f"pixels of the type {values.dtype} are not read")
    low, high = values.min(), values.max()
    if values.dtype.kind == "f":
        # Comparisons with NaN are false.
        if not (low >= 0 and high <= 1):
            raise UnsupportedError(
                f"its floats span {low:g} to {high:g}, where only 0 (black) to 1 (white) is read; "
                "scale them, or save it with 8 bits"
            )
        return _scaled(values)
    if values.dtype == np.uint16:
        if not black and 0 < high < 1 << (bits - 8):
            raise UnsupportedError(
                f"its {bits}-bit values end at {high}, so that it would be black in 8 bits; save "
                "it with 8 bits"
            )
        return (values >> (bits - 8)).astype(np.uint8)
    if low < 0 or high > 255:
        raise UnsupportedError(
            f"its {values.dtype} values span {low} to {high}, where only 0 to 255 is read; save it "
            "with 8 or 16 bits"
        )
    return values.astype(np.uint8)


def _scaled(values: np.ndarray) -> np.ndarray:
    """Floats of [0, 1] to bytes, row by row: no second image of floats."""
    out = np.empty(values.shape, np.uint8)
    for i, row in enumerate(values):
        out[i] = np.round(255 * row)
    return out
