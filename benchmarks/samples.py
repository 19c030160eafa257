"""How far scores move with the sample: the trained model on held-out rows that nobody has looked at.

The pipeline scores the first rows of each held-out source, and parts of the recipe were chosen with those scores in
sight. This scores the model that `make repro` left on the rows after them: samples of the same size without a row in
common, as many as there are rows for. Rows that hold a text of training, or a near duplicate of one, are left out;
distractors, examples and what a classifier is fitted on stay the same. It ends with a Markdown table, of the samples
mean and standard deviation. Results are kept in `runs/samples`, and a run that was stopped goes on.

Usage: python -m benchmarks.samples [--samples 5]   (after `make repro`, whose model and data it reads)
"""

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import zip_longest
from statistics import mean

from anna import io, log, schemas
from anna.corpus import ingest
from anna.corpus.decontaminate import HeldOutTexts
from anna.corpus.drops import DropLog
from anna.corpus.held_out import HeldOutTask
from anna.corpus.held_out_tables import held_out_tables
from anna.corpus.sources import Cleaning
from anna.engine import Local
from anna.errors import InputError
from anna.evaluation import contenders, encoding, run, tasks
from anna.params import RandomParams
from anna.reporting.ablation import spread
from anna.reporting.style import MISSING
from anna.scores import ZERO_SHOT, Score, from_detail, mean_over_categories
from anna.seeding import derive_seed
from anna.teachers.bm25 import Bm25Params
from anna.teachers.dense import DenseParams
from benchmarks.ablation import markdown
from benchmarks.workspace import REPO
from stages.evaluate import DETAIL, MODEL, EvaluateParams, lexical, teacher
from stages.ingest import CORPUS, QUERIES, IngestParams

FOLDER = REPO / "runs" / "samples"

MODELS = ("student", "teacher", "bm25")
"""What is scored, zero-shot."""


def fresh_samples(task: HeldOutTask, rows: int, trained: HeldOutTexts, most: int) -> list[HeldOutTask]:
    """Return up to `most` samples of `rows` units each, of those that the pipeline does not score.

    Args:
        task: With all its units, in the order in which they are drawn.
        rows: Units that the pipeline scores, the first ones.
        trained: Texts of training, which no sample holds.
        most: Samples.
    """
    rest = task.units[rows:]
    found = trained.verdicts(text for unit in rest for text in (unit.text, *unit.others))
    units = [unit for unit in rest if found.keys().isdisjoint((unit.text, *unit.others))]
    whole = [units[start : start + rows] for start in range(0, len(units) - rows + 1, rows)]
    return [replace(task, units=own) for own in whole[:most]]


def read_samples(params: IngestParams, most: int) -> list[list[HeldOutTask]]:
    """Return the samples, each of all tasks that have so many; rows are read and cleaned as `ingest` does it.

    Raises:
        InputError: If there is none.
    """
    rows = {source.task: source.rows for source in params.held_out if source.rows}
    whole = [source.model_copy(update={"rows": None}) for source in params.held_out if source.rows]
    cleaning = Cleaning(params.max_faulty_share, params.near_duplicate, derive_seed(RandomParams.load().seed, "ingest"))
    loaded = ingest.load_held_out(whole, DropLog(), cleaning, num_examples=params.examples_per_task)
    tables = io.read(CORPUS, schemas.CORPUS), io.read(QUERIES, schemas.QUERIES)
    trained = HeldOutTexts((text for own in tables for text in own["text"].to_pylist()), params.near_duplicate)
    by_task = [fresh_samples(task, rows[task.source.task], trained, most) for task in loaded]
    if not any(by_task):
        raise InputError(
            f"--samples {most}: no source of ingest.held_out has a sample besides its `rows` ({rows}); lower those, or "
            "ask for 1 or more"
        )
    return [[task for task in number if task] for number in zip_longest(*by_task)]


def score(sample: Sequence[HeldOutTask]) -> list[Score]:
    """Return the zero-shot scores of one sample."""
    params = EvaluateParams.load()
    settings = encoding.EncodeSettings(params.max_tokens, params.tokens_per_batch, params.dtype)
    compared = [
        contenders.student(MODEL, settings, with_examples=False),
        teacher(DenseParams.load(), Counter(), Local()),
        lexical(Bm25Params.load()),
    ]
    return run.evaluate_all(compared, tasks.held_out_tasks(held_out_tables(sample)), FOLDER, FOLDER / "results")


def table(in_sight: Iterable[Score], samples: Iterable[Sequence[Score]]) -> str:
    """Return a Markdown table of every model's score in sight and on the samples, a task a row.

    The last row's means over categories are of tasks' means, as not all tasks have as many samples.
    """
    seen, new = _by_task(in_sight), _by_task(score for sample in samples for score in sample)
    names = sorted({task for _, task in new})
    columns = [(model, scores) for model in MODELS for scores in (seen, new)]
    rows = [
        [name, str(len(new["student", name])), *(spread(_values(scores[model, name])) for model, scores in columns)]
        for name in names
    ]
    means = [_mean([scores[model, name] for name in names]) for model, scores in columns]
    head = ["", "samples", *(f"{model}, {which}" for model in MODELS for which in ("in sight", "new"))]
    return markdown(head, [*rows, ["mean of categories", "", *means]])


def _by_task(scores: Iterable[Score]) -> defaultdict[tuple[str, str], list[Score]]:
    """Return the scores of each model on each task."""
    found: defaultdict[tuple[str, str], list[Score]] = defaultdict(list)
    for score in scores:
        found[score.model, score.task].append(score)
    return found


def _values(scores: Iterable[Score]) -> list[float]:
    return [score.value for score in scores]


def _mean(by_task: Sequence[Sequence[Score]]) -> str:
    """Return the mean over categories of tasks' means, or a dash where a task has no score."""
    if not all(by_task):
        return MISSING
    return f"{mean_over_categories(own[0]._replace(value=mean(_values(own))) for own in by_task):.3f}"


def main() -> None:
    """Draw the samples, score them one after another, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=5, help="of each task, at most")
    count = parser.parse_args().samples
    detail = from_detail(io.read_json(DETAIL, remedy="run: dvc repro evaluate"))
    in_sight = [score for score in detail if score.mode == ZERO_SHOT]
    samples = read_samples(IngestParams.load(), count)
    results = [score(sample) for sample in log.progress(samples, unit="samples", desc="samples")]
    sys.stdout.write(f"\n{table(in_sight, results)}\n")


if __name__ == "__main__":
    try:
        log.setup()
        main()
    except InputError as error:
        sys.exit(f"benchmarks.samples: {error}")
