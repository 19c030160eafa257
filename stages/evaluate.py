"""Score the trained student, its untrained self, the dense teacher and BM25 on held-out tasks with mteb.

Minutes on a laptop, GPU hours on a whole benchmark. Results are kept in `runs/mteb` by content, so after a training
change only the student is scored again, and a killed run goes on where it was. Everything in `evaluate` is safe to
change: nothing is trained.
"""

import logging
from collections import Counter
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from anna import engine, folding, io, log, schemas, scores, segments
from anna.engine import Engine, ScoringParams
from anna.evaluation import contamination, contenders, encoding, leaderboard, run, tasks
from anna.modeling.hardware import Dtype
from anna.modeling.student import StudentParams
from anna.params import Params, recorded
from anna.teachers import bi_encoder, bm25, dense, padding, runs, tables, topk
from anna.teachers.bm25 import Bm25Params, bm25_search
from anna.teachers.dense import DenseParams, DenseTeacher

EVAL_TABLES = {name: Path(f"data/eval/{name}.parquet") for name in schemas.EVAL_TABLES}
MODEL, STORE = Path("models/sentence-transformer"), Path("runs/mteb")
METRICS, DETAIL = Path("metrics/mteb.json"), Path("metrics/mteb_tasks.json")
LEADERBOARD, CONTAMINATION = Path("metrics/leaderboard.json"), Path("metrics/contamination.json")
PLOT, RESULTS = Path("metrics/scores.csv"), Path("reports/mteb")

DENSE_CODE = (dense, bi_encoder, padding)
"""Modules that decide a vector of the dense teacher: an edit there scores it anew."""

BM25_CODE = (bm25, folding, runs, tables, topk, segments)
"""Modules that decide a score of BM25."""

_log = logging.getLogger("stages.evaluate")  # run as __main__


class EvaluateParams(Params):
    """What is scored, and how."""

    section: ClassVar[str] = "evaluate"

    benchmark: str
    """`held_out`, or the name of one of mteb's benchmarks, e.g. `MTEB(eng, v2)`."""
    tasks: list[str] | None = Field(min_length=1)
    """Tasks of the benchmark to score; null: all."""
    baselines: list[Literal["untrained", "teacher", "bm25"]]
    """Scored beside the student."""
    with_examples: bool
    """Whether the student is scored once more with all in-context examples that it carries in its prompts."""
    max_tokens: int = Field(gt=1)
    """Longest text, EOS included; the prompt comes on top."""
    tokens_per_batch: int = Field(gt=0)
    """Largest number of tokens computed at once; a longer text stands alone."""
    dtype: Dtype
    """Of matrix products; auto is bfloat16 where the hardware has it."""


INPUTS = (*EVAL_TABLES.values(), MODEL)
OUTPUTS = (METRICS, DETAIL, LEADERBOARD, CONTAMINATION, PLOT, RESULTS)
SOURCES = recorded("ingest")
PARAMS = (EvaluateParams, StudentParams, DenseParams, Bm25Params, SOURCES)
HOW = (ScoringParams,)
CODE_FILES = (Path("anna/evaluation/mteb_eng_v2_scores.csv"),)


def main() -> Counter[str]:
    """Score all contenders, write metrics and results, log the table; return the counts of the teacher's vectors."""
    params, counts = EvaluateParams.load(), Counter[str]()
    ingest = SOURCES.load().values()
    chosen = tasks.select_tasks(params.benchmark, params.tasks, lambda: tasks.read_tables(EVAL_TABLES))
    settings = encoding.EncodeSettings(params.max_tokens, params.tokens_per_batch, params.dtype)
    with engine.opened(ScoringParams.load().here) as where:
        baselines = {
            "untrained": lambda: contenders.untrained(StudentParams.load(), MODEL, settings, where),
            "teacher": lambda: teacher(DenseParams.load(), counts, where),
            "bm25": lambda: lexical(Bm25Params.load()),
        }
        student = contenders.student(
            MODEL,
            settings,
            where,
            with_examples=params.with_examples,
            trained_on=contamination.training_tasks(ingest),
        )
        compared = [student, *(baselines[name]() for name in params.baselines)]
        results = run.evaluate_all(compared, chosen, STORE, RESULTS)
    io.write_json(METRICS, scores.summary(results))
    io.write_json(DETAIL, scores.by_task(results))
    io.write_json(LEADERBOARD, leaderboard.summary(params.benchmark, results))
    io.write_json(CONTAMINATION, contamination.summary(ingest, [task.metadata.name for task in chosen]))
    io.write_csv(PLOT, ("model", "category", "score"), scores.rows(results))
    _log.info("mean main score by category\n%s", scores.table(results))
    return counts


def teacher(params: DenseParams, counts: Counter[str], where: Engine) -> contenders.Contender:
    """Return the dense teacher as it retrieves; its vectors are kept where `retrieve_dense` keeps them."""
    own = DenseTeacher(params, counts, where)
    return contenders.dense(own.spec.decisive, (params.query_prompt, params.doc_prompt), own.embed, *DENSE_CODE)


def lexical(params: Bm25Params) -> contenders.Contender:
    """Return BM25 as it retrieves."""
    search = partial(bm25_search, k1=params.k1, b=params.b, skip_own_text=False)
    return contenders.bm25(search, {"k1": params.k1, "b": params.b}, *BM25_CODE)


if __name__ == "__main__":
    log.run_stage("evaluate", main)
