"""Trainings of whole vectors, a surface fitted to them, and its best vector: `widths.worth`.

Where FURs say what taking a little away from a trained network costs, this trains other networks,
all sites changed at once, each as short as `config.train` says, and learns what widths are worth
when a network is trained anew. FURs of the first network are what it believes of the sites before.
It says what it expects to gain, with an interval, and stops where no other training pays.
"""

import math
import time
from collections.abc import Sequence

import numpy as np

from furs_jax.furs.measure import check_images, make_task_estimate, search_batches
from furs_jax.machine import hosts
from furs_jax.machine.programs import release_programs
from furs_jax.methods import Channels, Method, Record
from furs_jax.options.schema import AUTO, Options
from furs_jax.run.context import Prepared, Run, derived_seed
from furs_jax.run.entries import compare_entry, training_macs, vector_entry
from furs_jax.run.lines import PER_SITE, round_phase
from furs_jax.run.phases import compile_first, is_trained, train_phase
from furs_jax.run.prediction import conclusion, prediction, training_line
from furs_jax.run.together import train_at_once
from furs_jax.training.evaluate import Evaluator
from furs_jax.training.stacked import Stack, make_stacked_trainer, most_at_once
from furs_jax.training.trainer import make_trainer
from furs_jax.widths.worth.decisions import Decision, Rules, decide, mirrored
from furs_jax.widths.worth.surface import Noise
from furs_jax.widths.worth.whole import Whole

_SEED = 7  # of `derived_seed`
# Of the logarithm of the loss. Measured on Fashion-MNIST at 14x14 (plain-14, ResNet-14, ResNet-8),
# 4 to 10 seeds each: 0.035 to 0.038 after one epoch, 0.018 to 0.035 after three.
_NOISE = Noise(0.035, 0.4)


class Response(Method):
    """Scores are -log of the loss on the search split.

    Widths change it by powers, seeds by a share that hardly depends on it, and it tells networks
    apart as well as accuracy does with 1.7 times as many trainings.
    """

    unused = ("init_from",)

    def check(self, options: Options, prepared: Prepared) -> None:
        if options.mode == "search":
            check_images(options.furs, prepared.task.dataset.search)
            if options.response.at_once not in (AUTO, 1):
                Stack(prepared.task.net, _first(options, prepared)).check()

    def search(self, run: Run) -> Channels:
        records = run.workdir.rounds.read()
        most = run.options.response.max_trainings
        for record in records:
            run.console.print(training_line(record, most))
        before = run.clock.seconds, run.clock.hidden
        _train_at_once(run, len(records))
        while following := _following(run, records):
            hosts.agree("the next channel vector", following)
            record = _trained(run, records, following, before)
            run.workdir.rounds.append(record)
            run.console.print(training_line(record, most))
            records.append(record)
            release_programs()
            before = run.clock.seconds, run.clock.hidden
        hosts.agree("the widths", records[-1]["found"])
        run.console.print(conclusion(records, run.task.net.site_names))
        return tuple(records[-1]["found"])

    def stays(self, run: Run) -> bool:
        records = run.workdir.rounds.read()
        return bool(records) and self.is_complete(run) and records[-1]["found"] == list(run.start)

    def is_complete(self, run: Run) -> bool:
        return not _following(run, run.workdir.rounds.read())

    def check_journal(self, run: Run) -> None:
        records = run.workdir.rounds.read()
        for index, stored in enumerate(records):
            try:
                following = _following(run, records[:index])
                if not following:
                    raise ValueError("no other training pays after the lines before")
                compare_entry(stored, _given(run, index, following), "its")
                if stored["score"] != _score(stored):
                    raise ValueError("its score is not that of its loss")
                compare_entry(stored, _told(run, records[: index + 1]), "its")
                for name in ("train_loss", "search_accuracy", "seconds"):
                    stored[name]
            except (ValueError, LookupError, TypeError) as error:
                raise run.workdir.rounds.damaged(index + 1, str(error)) from error

    def check_result(self, options: Options, rounds: Sequence[Record], result: Record) -> None:
        compare_entry(result["searched"], {"channels": rounds[-1]["found"]}, "searched")

    def prediction(self, rounds: Sequence[Record]) -> Record:
        return prediction(rounds)


PLUGIN = Response


def _following(run: Run, records: Sequence[Record]) -> list[int]:
    """The vector to train next; nothing where none is."""
    return records[-1]["following"] if records else list(run.start)


def _given(run: Run, index: int, channels: Sequence[int]) -> Record:
    """What is known of a line before its training."""
    net, recipe, split = run.task.net, run.options.train, run.task.dataset.train
    return {
        "round": index,
        **vector_entry(net, run.cost, channels),
        "train_macs": training_macs(net, channels, recipe, split),
    }


def _score(record: Record) -> float:
    return -math.log(max(record["search_loss"], 1e-12))


def _first(options: Options, given: Prepared | Run) -> list[Channels]:
    """The vectors that are trained whatever others score."""
    others = mirrored(_space(options, given), _rules(options).first, _seed(options))
    return [given.start, *others][: options.response.max_trainings]


def _train_at_once(run: Run, done: int) -> None:
    """Trains the first vectors, several by one program; `_trained` then finds that done."""
    vectors, most = _first(run.options, run), run.options.response.max_trainings
    recipe, split, count = run.options.train, run.task.dataset.train, run.options.response.at_once
    if count == AUTO:
        count = hosts.from_first(lambda: most_at_once(run.task, vectors, recipe, split))
    for first in range(0, len(vectors), count):
        part = range(len(vectors))[first : first + count]
        if len(part) == 1 or part[-1] < done:
            continue
        trainer = make_stacked_trainer(run.task, vectors[first : first + count], recipe, split)
        title = f"trainings {first + 1} to {part[-1] + 1}/{most}"
        train_at_once(run, trainer, list(map(round_phase, part)), title, [(_SEED, i) for i in part])
        release_programs()


def _trained(
    run: Run, records: Sequence[Record], channels: Sequence[int], clock: tuple[float, float]
) -> Record:
    """Trains a vector's network; the line of it, and of what is known then.

    Args:
      clock: seconds of compiling, seen and hidden, before what the line counts.
    """
    index, search, (before, hidden) = len(records), run.task.dataset.search, clock
    trainer = make_trainer(run.task, channels, run.options.train, run.task.dataset.train)
    evaluate = Evaluator(run.task, channels)
    phase, title = round_phase(index), f"training {index + 1}/{run.options.response.max_trainings}"
    finished = is_trained(run, phase, trainer.recipe.epochs)

    def compile_ahead() -> None:
        if not finished:
            evaluate.compile(trainer.abstract().variables, search)

    compile_first(run, trainer, phase, title)
    waiting = run.console.waiting(f"{title}, compiling what measures it")
    with run.clock.ahead(compile_ahead, waiting=waiting):
        compiled = run.clock.seconds
        state, trained = train_phase(run, trainer, phase, title, (_SEED, index))
        compiled = run.clock.seconds - compiled
    scores = trained.get("search") or evaluate(state.variables, search)
    start = time.monotonic()
    compiling = run.clock.seconds
    furs = {} if records else _furs(run, channels, state.variables)
    compiling = run.clock.seconds - compiling
    measured = time.monotonic() - start - compiling
    record = {
        **_given(run, index, channels),
        "train_loss": trained["loss"],
        "search_loss": scores["loss"],
        "search_accuracy": scores["top1"],
        **furs,
    }
    record["score"] = _score(record)
    start = time.monotonic()
    told = _told(run, [*records, record])
    seconds = {
        "train": trained["seconds"] - compiled,
        "furs": measured,
        "decide": time.monotonic() - start,
        "compile": run.clock.seconds - before,
        "compile_hidden": run.clock.hidden - hidden,
    }
    return {**record, **told, "seconds": {part: round(s, 3) for part, s in seconds.items()}}


def _furs(run: Run, channels: Sequence[int], variables) -> Record:
    """Of the first network: what is believed of the sites before others are trained."""
    options = run.options
    estimate = make_task_estimate(run.task, options.furs, channels, cost=run.cost)
    images, seed = search_batches(run.task, options.furs), derived_seed(options.seed, 2, 0)
    found = estimate(variables, images, options.reallocate.num_layers, seed).as_json()
    return {"utilisation": {name: found[name] for name in (*PER_SITE, "draws", "spread")}}


def _told(run: Run, records: Sequence[Record]) -> Record:
    """What is known after these trainings, and what to train next."""
    decision = _decision(run, records)
    answer = decision.answer._asdict()
    return {
        "found": list(answer.pop("channels")),
        **{name: list(v) if isinstance(v, tuple) else v for name, v in answer.items()},
        "following": list(decision.following[0]) if decision.following else [],
    }


def _space(options: Options, given: Prepared | Run, centre: np.ndarray | None = None) -> Whole:
    """The vectors that may be tried."""
    widths = options.reallocate.min_channels, options.reallocate.channel_multiple
    return Whole(given.task.net, given.budget, given.start, given.cost, *widths, centre)


def _rules(options: Options) -> Rules:
    return Rules(most=options.response.max_trainings, least=options.response.least_gain)


def _seed(options: Options) -> int:
    return derived_seed(options.seed, _SEED, 0)


def _decision(run: Run, records: Sequence[Record]) -> Decision:
    options, tried = run.options, [tuple(record["channels"]) for record in records]
    found = records[-2]["found"] if len(records) > 1 else run.start
    # What was found may lie far beyond all that was trained, where nothing is known.
    centre = np.clip(found, np.min(tried, axis=0), np.max(tried, axis=0))
    space = _space(options, run, centre)
    # A FUR is of one more unit of the cost, a slope of so many shares of the width.
    direction = np.array(records[0]["utilisation"]["furs"]) * space.elasticities
    return decide(
        space,
        tried,
        [record["score"] for record in records],
        _NOISE,
        _seed(options),
        _rules(options),
        direction,
    )
