"""Which sites are widened, and which narrowed (Chen et al., CVPR 2020, section 3.3)."""

from collections.abc import Collection, Sequence

import numpy as np

from furs_jax.errors import ConfigError


def choose_sites(
    furs: Sequence[float], num_layers: int, still: Collection[int] = ()
) -> tuple[list[int], list[int]]:
    """The sites to widen (highest FUR first) and to narrow (lowest first), none of them of `still`.

    At most half of the others each way, so that none is in both; a tie goes to the lower index.

    Raises:
      ConfigError: a FUR is not finite.
    """
    furs = np.asarray(furs, float)
    if not np.all(np.isfinite(furs)):
        raise ConfigError(f"FURs must be finite to reallocate by them, not {furs.tolist()}")
    descending, ascending = (
        [site for site in np.argsort(order, kind="stable").tolist() if site not in still]
        for order in (-furs, furs)
    )
    count = min(num_layers, len(ascending) // 2)
    increased = descending[:count]
    decreased = [site for site in ascending if site not in increased][:count]
    return increased, decreased


def directed(furs: Sequence[float], direction: str, seed: int) -> np.ndarray:
    """What the sites are ranked by, shape (L,): the FURs, or what a control puts in their place.

    Args:
      furs: shape (L,).
      direction: "fur": as they are. "random": a random order. "reversed": the worst first. A
        method that does not beat "random" has shown nothing.
      seed: of "random".
    """
    if direction == "random":
        return np.random.default_rng(seed).permutation(len(furs)).astype(float)
    return np.asarray(furs, float) * (-1 if direction == "reversed" else 1)
