"""Network Adjustment (Chen et al., CVPR 2020, algorithm 1): train, measure FURs, reallocate."""

from collections.abc import Iterable, Sequence
from typing import Any

from furs_jax.furs.importance import channel_importance
from furs_jax.furs.measure import check_images, make_monitor, make_task_estimate, search_batches
from furs_jax.furs.significance import sure, what_draws_bought
from furs_jax.machine import hosts
from furs_jax.machine.programs import release_programs
from furs_jax.methods import Channels, Method
from furs_jax.methods._block_rounds import BlockEstimate, at_depths, check_blocks
from furs_jax.methods._following import (
    check_rounds,
    given_by,
    layers_in_round,
    next_network,
    recipe_of,
    round_line,
    warm_recipe,
)
from furs_jax.networks.network import Network
from furs_jax.objectives import Batch, Variables
from furs_jax.options.schema import AUTO, Options
from furs_jax.run.context import Prepared, Run, derived_seed
from furs_jax.run.entries import compare_entry
from furs_jax.run.lines import PER_SITE, round_phase, rounded, selected, selected_depths
from furs_jax.run.phases import compile_first, from_weights, is_trained, train_phase
from furs_jax.training.checkpoint import Checkpoints
from furs_jax.training.evaluate import Evaluator
from furs_jax.training.recipe import check_recipe
from furs_jax.training.step import TrainState
from furs_jax.training.trainer import Trainer, make_trainer
from furs_jax.widths.inherit import (
    added_branches,
    following_widths,
    free_axes,
    inherit,
    least_important_first,
)

Record = dict[str, Any]

_RECORDED = (*PER_SITE, "draws", "spread")


class NetworkAdjustment(Method):
    """Rounds of training, measuring and moving channels; `reallocate.direction` makes controls."""

    moves_blocks = True
    moves_in_units = True

    def check(self, options: Options, prepared: Prepared) -> None:
        if options.search.blocks:
            check_blocks(prepared.task.net)
        if options.search.warm_start:
            check_recipe(warm_recipe(options), "search.warm", prepared.task.dataset.train)
            free_axes(prepared.task.net)  # refuses networks that can't inherit
        if options.mode == "search":
            check_images(options.furs, prepared.task.dataset.search)

    def network(self, run: Run) -> Network:
        rounds = run.workdir.rounds.read() if run.options.search.blocks else []
        select = run.options.search.select
        return at_depths(run, selected_depths(rounds, select)).task.net if rounds else run.task.net

    def search(self, run: Run) -> tuple[int, ...]:
        return run_rounds(run)

    def is_complete(self, run: Run) -> bool:
        return is_complete(run, run.workdir.rounds.read())

    def check_journal(self, run: Run) -> None:
        check_rounds(run, run.workdir.rounds.read())

    def check_result(self, options: Options, rounds: Sequence[Record], result: Record) -> None:
        begun, select = result.get("start", result["original"]), options.search.select
        found: Record = {"channels": list(selected(rounds, select))}
        if options.search.blocks:
            found["depths"] = selected_depths(rounds, select)
        first = {key: rounds[0][key] for key in ("channels", "macs", "params")}
        compare_entry(begun, first, "the start")
        compare_entry(result["searched"], found, "searched")


PLUGIN = NetworkAdjustment


def run_rounds(run: Run) -> tuple[int, ...]:
    """All rounds, those already done read from the journal; returns the searched vector."""
    options = run.options.search
    records = run.workdir.rounds.read()
    for record in records:
        run.console.print(round_line(record, options.rounds))
    while not is_complete(run, records):
        record = _round(run, records)
        agreed = [record.get(f"next_{key}") for key in ("channels", "depths", "parent")]
        hosts.agree("the next channel vector", agreed)
        run.workdir.rounds.append(record)
        run.console.print(round_line(record, options.rounds))
        records.append(record)
        release_programs()
    if len(records) < options.rounds:
        run.console.print(
            f"stopped after {len(records)} rounds: no two sites' FURs differ by more than "
            f"{records[-1]['spread']:.1f} standard errors, and "
            f"{sure(len(records[-1]['furs']), _searched_images(run)):.1f} are needed"
        )
    return selected(records, options.select)


def is_complete(run: Run, records: list[Record]) -> bool:
    """Whether no round is left to do."""
    options = run.options.search
    if len(records) >= options.rounds:
        return True
    return options.stop_when_equal and _equal(records, _searched_images(run))


def _searched_images(run: Run) -> int:
    """How many FURs are measured on."""
    return len(search_batches(run.task, run.options.furs).split.labels)


def _equal(records: list[Record], images: int) -> bool:
    """Whether the last round's FURs, measured on so many images, differ at no two sites.

    And no block has moved.
    """
    if not records or records[-1].get("deeper") is not None:
        return False
    return records[-1]["spread"] < sure(len(records[-1]["furs"]), images)


def _round(run: Run, records: list[Record]) -> Record:
    """Trains the next network, measures its FURs and chooses the vector after it."""
    index, given, spent = len(records), given_by(run, records), run.clock.span()
    channels, title = tuple(given["channels"]), _title(run, index)
    own, images = at_depths(run, given.get("depths")), search_batches(run.task, run.options.furs)
    trainer = _trainer(run, channels, records, images)
    measure = _Measure(own, channels, images, run.task.net.depths)
    compile_first(run, trainer, round_phase(index), title)
    waiting = run.console.waiting(f"{title}, compiling what measures it")
    with run.clock.ahead(lambda: measure.compile(trainer), waiting=waiting):
        training = run.clock.span()
        state, trained = _train(own, trainer, index)
        trained_in = trained["seconds"] - training.compiled
    measuring = run.clock.span()
    with run.console.waiting(f"{title}, measuring FURs{run.console.ahead()}"):
        found = measure(state.variables, index)
    measured_in = measuring.worked
    record = {**given, "train_loss": trained["loss"], **found}
    seconds = {
        "train": trained_in,
        "furs": measured_in,
        "compile": spent.compiled,
        "compile_hidden": spent.hidden,
    }
    return {**record, **next_network(run, [*records, record]), "seconds": rounded(seconds)}


class _Measure:
    """What a round looks at once its network is trained: the search split, and the FURs."""

    def __init__(
        self, run: Run, channels: Channels, images: Iterable[Batch], begun: tuple[int, ...]
    ):
        """At the run's depths; the search began with `begun`."""
        self._run, self._images = run, images
        self._evaluate = Evaluator(run.task, channels)
        self._estimate = make_task_estimate(run.task, run.options.furs, channels, cost=run.cost)
        blocks = run.options.search.blocks
        self._blocks = BlockEstimate(run, channels, begun) if blocks else None

    def compile(self, trainer: Trainer) -> None:
        variables = trainer.abstract().variables
        self._evaluate.compile(variables, self._run.task.dataset.search)
        for estimate in (self._estimate, self._blocks):
            if estimate:
                estimate.compile(variables, self._images)

    def __call__(self, variables: Variables, index: int) -> Record:
        """A round's figures, and what they cost in draws."""
        options = self._run.options
        search = self._evaluate(variables, self._run.task.dataset.search)
        count, seed = (
            layers_in_round(options.reallocate, index),
            derived_seed(options.seed, 2, index),
        )
        found = self._estimate(variables, self._images, count, seed)
        of_blocks = self._blocks(variables, self._images, index) if self._blocks else {}
        bought = options.furs.draws == AUTO and what_draws_bought(found, options.furs.max_draws)
        if bought:
            self._run.console.print(f"FURs: {bought}")
        measured = found.as_json()
        return {
            "search_loss": search["loss"],
            "search_accuracy": search["top1"],
            **{field: measured[field] for field in _RECORDED},
            **of_blocks,
        }


def _train(run: Run, trainer: Trainer, index: int) -> tuple[TrainState, Record]:
    title = _title(run, index)
    monitor = make_monitor(run.task, run.options.furs, trainer.channels, run.cost)
    return train_phase(run, trainer, round_phase(index), title, (1, index), monitor)


def _title(run: Run, index: int) -> str:
    return f"round {index + 1}/{run.options.search.rounds}"


def _trainer(
    run: Run, channels: Sequence[int], records: list[Record], images: Iterable[Batch]
) -> Trainer:
    """Of a round: from scratch, or after the first one from the parent's weights."""
    recipe, split = recipe_of(run.options, len(records)), run.task.dataset.train
    if not records:
        return from_weights(run, make_trainer(run.task, channels, recipe, split))
    task = at_depths(run, records[-1].get("next_depths")).task
    if not run.options.search.warm_start:
        return make_trainer(task, channels, recipe, split)
    parent = records[-1]["next_parent"]
    before = at_depths(run, records[parent].get("depths")).task
    old_channels, old = records[parent]["channels"], _end_state(run, records, parent, images)
    axes, silent = free_axes(before.net), added_branches(before.net, task.net)
    importance = channel_importance(
        before.apply(old_channels), old_channels, old.variables, images, run.task.devices
    )
    widths = following_widths(before.net, old_channels, task.net, channels)
    order = least_important_first(importance, axes, old_channels, widths)
    trainer = make_trainer(task, channels, recipe, split)
    return trainer._replace(
        init=lambda seed: inherit(old, trainer.init(seed), order, axes, silent=silent)
    )


def _end_state(run: Run, records: list[Record], index: int, images: Iterable[Batch]) -> TrainState:
    """Of the training of a round that is done; trained again where it has been deleted."""
    channels, recipe = records[index]["channels"], recipe_of(run.options, index)
    own = at_depths(run, records[index].get("depths"))
    if not is_trained(run, round_phase(index), recipe.epochs):
        _train(own, _trainer(run, channels, records[:index], images), index)
    with Checkpoints(run.workdir.checkpoints / round_phase(index), read_only=True) as checkpoints:
        trainer = make_trainer(own.task, channels, recipe, run.task.dataset.train)
        return checkpoints.restore(trainer.abstract())
