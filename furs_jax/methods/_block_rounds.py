"""Rounds that move whole blocks, too: networks of other depths, and what their lines hold."""

from collections.abc import Iterable, Sequence
from typing import Any

from furs_jax.errors import ConfigError
from furs_jax.furs.estimate import Branches
from furs_jax.furs.measure import make_task_estimate, search_batches
from furs_jax.furs.significance import sure
from furs_jax.networks.network import Network
from furs_jax.objectives import Batch, Variables
from furs_jax.run.context import Run, derived_seed
from furs_jax.widths.block_moves import block_costs, changed, choose_stages, last_branches
from furs_jax.widths.budget import width_ends
from furs_jax.widths.sites import directed

Record = dict[str, Any]


def check_blocks(net: Network) -> None:
    """Raises ConfigError where a network has no two stages whose blocks can be compared."""
    if not net.depths:
        raise ConfigError(
            f"search.blocks=True moves blocks between stages, and {net.name} has none that come "
            "and go; give a ResNet, MnasNet or EfficientNet, or search.blocks=False"
        )
    if len(last_branches(net)) < 2:
        raise ConfigError(
            f"search.blocks=True compares stages by their last blocks, and {net.name} with blocks "
            f"{net.depths} has fewer than two whose branch can be dropped without its shortcut; "
            "give padding=max, other depths, or search.blocks=False"
        )


def at_depths(run: Run, depths: Sequence[int] | None) -> Run:
    """The run with the network of so many blocks in each stage, where they are given.

    Its original and its first vector are resized with it: what a round's steps are relative to.
    """
    net = run.task.net
    if depths is None or tuple(depths) == net.depths:
        return run
    other = net.with_depths(depths)
    return run._replace(
        task=run.task._replace(net=other),
        cost=run.cost.on(other),
        start=net.resized(run.start, depths),
        bounds=run.bounds.at(net, depths),
    )


class BlockEstimate:
    """The ratios of the stages' last blocks, by a program that is compiled once."""

    def __init__(self, run: Run, channels: Sequence[int], begun: Sequence[int]):
        """Of the run's network with these channels; `begun` are the search's first depths."""
        net, known = run.task.net.of(channels), begun if run.options.search.warm_start else None
        self._options, self._count = run.options, len(net.depths)
        self._sites = last_branches(net, known)
        costs = block_costs(net, self._sites, run.cost.on)
        branches = Branches(tuple(self._sites.values()), costs)
        self._estimate = (
            make_task_estimate(
                run.task, run.options.furs, channels, cost=run.cost, branches=branches
            )
            if len(self._sites) > 1
            else None
        )

    def compile(self, variables: Variables, images: Iterable[Batch]) -> None:
        """What a call would do first; see `Estimate.compile`."""
        if self._estimate:
            self._estimate.compile(variables, images)

    def __call__(self, variables: Variables, images: Iterable[Batch], index: int) -> Record:
        """What the line of a round holds of them: of each stage, None where it is not known."""
        furs = errors = [None] * self._count
        apart: list[list[float]] = []
        if self._estimate:
            seed = derived_seed(self._options.seed, 8, index)
            found = self._estimate(variables, images, 1, seed)
            furs, errors = (
                [known.get(stage) for stage in range(self._count)]
                for known in (
                    dict(zip(self._sites, values.tolist(), strict=True))
                    for values in (found.furs, found.furs_stderr)
                )
            )
            apart = found.apart.tolist()
        return {"block_furs": furs, "block_furs_stderr": errors, "block_apart": apart}


def moved_before(records: Sequence[Record], parent: Record) -> tuple[set[int], set[int]]:
    """The stages that got blocks, and those that lost some, on the way to the parent's network."""
    gained, lost, index = set(), set(), parent["round"]
    while index:
        line = records[index - 1]
        gained.add(line["deeper"])
        lost.add(line["shallower"])
        index = line["next_parent"]
    return gained - {None}, lost - {None}


def block_moves(run: Run, records: Sequence[Record], parent: Record) -> Record:
    """Which stage gets a block after the last round and which loses one.

    Args:
      run: with the parent's network.
      records: the rounds' lines, of the last one what was measured.
      parent: the line of the round whose network is changed.
    """
    net, options, index = run.task.net, run.options, records[-1]["round"]
    ratios = parent["block_furs"]
    measured = [stage for stage, ratio in enumerate(ratios) if ratio is not None]
    seed = derived_seed(options.seed, 9, index)
    ranks: list[float | None] = [None] * len(ratios)
    known = directed([ratios[stage] for stage in measured], options.reallocate.direction, seed)
    for stage, rank in zip(measured, known.tolist(), strict=True):
        ranks[stage] = rank
    images = len(search_batches(run.task, options.furs).split.labels)
    needed = sure(len(measured), images)
    before = moved_before(records, parent)
    chosen = choose_stages(ranks, parent["block_apart"], net.depths, needed, *before)
    if chosen and not _can_pay(run, changed(net.depths, *chosen)):
        chosen = None
    gains, loses = chosen or (None, None)
    depths = list(changed(net.depths, gains, loses))
    return {"deeper": gains, "shallower": loses, "next_depths": depths}


def _can_pay(run: Run, depths: Sequence[int]) -> bool:
    """Whether the narrowest network of so many blocks is within the budget."""
    net, bounds = run.task.net.with_depths(depths), run.bounds.at(run.task.net, depths)
    narrowest, _ = width_ends(len(net.channels), **bounds._asdict())
    cost = run.cost.on(net)
    return cost.of(narrowest) <= run.budget and cost.within(narrowest)
