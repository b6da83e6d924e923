"""Trainings of whole vectors, a surface fitted to them, and its best vector: `widths.worth`.

Where FURs say what taking a little away from a trained network costs, this trains other networks,
all sites changed at once, each as short as `config.train` says, and learns what widths are worth
when a network is trained anew. FURs of the first network are what it believes of the sites before.
It says what it expects to gain, with an interval, and stops where no other training pays.
"""

from collections.abc import Sequence

from furs_jax.furs.measure import check_images, make_task_estimate, search_batches
from furs_jax.machine import hosts
from furs_jax.machine.programs import Span, release_programs
from furs_jax.methods import Channels, Method, Record
from furs_jax.methods._whole_vectors import SEED, first_vectors, score, told
from furs_jax.options.schema import AUTO, Options
from furs_jax.run.context import Prepared, Run, derived_seed
from furs_jax.run.entries import compare_entry, training_macs, vector_entry
from furs_jax.run.lines import PER_SITE, round_phase, rounded
from furs_jax.run.phases import compile_first, is_trained, train_phase
from furs_jax.run.prediction import conclusion, prediction, training_line
from furs_jax.run.together import train_at_once
from furs_jax.training.evaluate import Evaluator
from furs_jax.training.stacked import Stack, make_stacked_trainer, most_at_once
from furs_jax.training.trainer import make_trainer

_OTHER_HARDWARE = 1e-6  # share that figures of a fit differ by, at most, where sums are rounded so


class Response(Method):
    """Scores are -log of the loss on the search split.

    Widths change it by powers, seeds by a share that hardly depends on it, and it tells networks
    apart as well as accuracy does with 1.7 times as many trainings.
    """

    moves_in_units = True
    unused = ("init_from",)

    def check(self, options: Options, prepared: Prepared) -> None:
        if options.mode == "search":
            check_images(options.furs, prepared.task.dataset.search)
            if options.response.at_once not in (AUTO, 1):
                Stack(prepared.task.net, first_vectors(options, prepared)).check()

    def search(self, run: Run) -> Channels:
        records = run.workdir.rounds.read()
        most = run.options.response.max_trainings
        for record in records:
            run.console.print(training_line(record, most))
        spent = run.clock.span()
        _train_at_once(run, len(records))
        while following := _following(run, records):
            hosts.agree("the next channel vector", following)
            record = _trained(run, records, following, spent)
            run.workdir.rounds.append(record)
            run.console.print(training_line(record, most))
            records.append(record)
            release_programs()
            spent = run.clock.span()
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
                if stored["score"] != score(stored):
                    raise ValueError("its score is not that of its loss")
                known = told(run, records[: index + 1])
                compare_entry(stored, known, "its", _OTHER_HARDWARE)
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


def _train_at_once(run: Run, done: int) -> None:
    """Trains the first vectors, several by one program; `_trained` then finds that done."""
    vectors, most = first_vectors(run.options, run), run.options.response.max_trainings
    recipe, split, count = run.options.train, run.task.dataset.train, run.options.response.at_once
    if count == AUTO:
        count = hosts.from_first(lambda: most_at_once(run.task, vectors, recipe, split))
    for first in range(0, len(vectors), count):
        part = range(len(vectors))[first : first + count]
        if len(part) == 1 or part[-1] < done:
            continue
        trainer = make_stacked_trainer(run.task, vectors[first : first + count], recipe, split)
        title = f"trainings {first + 1} to {part[-1] + 1}/{most}"
        train_at_once(run, trainer, list(map(round_phase, part)), title, [(SEED, i) for i in part])
        release_programs()


def _trained(run: Run, records: Sequence[Record], channels: Sequence[int], spent: Span) -> Record:
    """Trains a vector's network; the line of it, and of what is known then.

    Args:
      spent: since the line before.
    """
    index, search = len(records), run.task.dataset.search
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
        training = run.clock.span()
        state, trained = train_phase(run, trainer, phase, title, (SEED, index))
        trained_in = trained["seconds"] - training.compiled
    scores = trained.get("search") or evaluate(state.variables, search)
    measuring = run.clock.span()
    furs = {} if records else _furs(run, channels, state.variables)
    measured_in = measuring.worked
    record = {
        **_given(run, index, channels),
        "train_loss": trained["loss"],
        "search_loss": scores["loss"],
        "search_accuracy": scores["top1"],
        **furs,
    }
    record["score"] = score(record)
    deciding = run.clock.span()
    known = told(run, [*records, record])
    seconds = {
        "train": trained_in,
        "furs": measured_in,
        "decide": deciding.worked,
        "compile": spent.compiled,
        "compile_hidden": spent.hidden,
    }
    return {**record, **known, "seconds": rounded(seconds)}


def _furs(run: Run, channels: Sequence[int], variables) -> Record:
    """Of the first network: what is believed of the sites before others are trained."""
    options = run.options
    estimate = make_task_estimate(run.task, options.furs, channels, cost=run.cost)
    images, seed = search_batches(run.task, options.furs), derived_seed(options.seed, 2, 0)
    found = estimate(variables, images, options.reallocate.num_layers, seed).as_json()
    return {"utilisation": {name: found[name] for name in (*PER_SITE, "draws", "spread")}}
