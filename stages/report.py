"""Put scores, training curve, labels, drops and costs on one self-contained page, with the figures as files beside it.

Seconds. Reads metrics and tables and computes no score: everything in `anna/reporting` is safe to change.
"""

import logging
from pathlib import Path

from anna import io, log, schemas
from anna.params import STAGES
from anna.reporting import gather, page, plots, results

SUMMARY, MEANS = Path("metrics/mteb.json"), Path("metrics/scores.csv")
TASKS = Path("metrics/mteb_tasks.json")
CURVE, VALIDATION = Path("metrics/training.csv"), Path("metrics/validation.csv")
LABELS, GROUPS = Path("data/labels.parquet"), Path("data/groups.parquet")
DROPS, INGEST_DROPS = Path("data/drops.parquet"), Path("data/ingest_drops.parquet")

COUNTS = tuple(Path(f"metrics/{stage}.json") for stage in STAGES[:-2])
COSTS = tuple(Path(f"metrics/cost/{stage}.json") for stage in STAGES[:-1])
SIDECARS = tuple(
    Path(f"data/{table}.json")
    for table in (
        "corpus",
        "queries",
        "qrels",
        "ingest_drops",
        "bm25_run",
        "dense_run",
        "reranker_run",
        "labels",
        "groups",
        "drops",
        "eval/corpus",
        "eval/queries",
        "eval/qrels",
        "eval/pairs",
        "eval/labelled",
        "eval/summaries",
        "eval/examples",
    )
)
REPORT, PLOTS, TABLE = Path("reports/index.html"), Path("reports/plots"), Path("reports/results.txt")

INPUTS = (SUMMARY, MEANS, TASKS, CURVE, VALIDATION, LABELS, GROUPS, DROPS, INGEST_DROPS, *COUNTS, *COSTS, *SIDECARS)
OUTPUTS, PARAMS = (REPORT, PLOTS, TABLE), ()
CODE_FILES = (Path("anna/reporting/page.html.j2"),)

_log = logging.getLogger(__name__)


def main() -> None:
    """Write page and plots, log the result table and where the page lies."""
    tables = gather.Tables(
        io.read(LABELS, schemas.LABELS),
        io.read(GROUPS, schemas.GROUPS),
        io.read(DROPS, schemas.DROPS),
        io.read(INGEST_DROPS, schemas.INGEST_DROPS),
    )
    facts = gather.read(
        summary=SUMMARY,
        means=MEANS,
        tasks=TASKS,
        curve=CURVE,
        validation=VALIDATION,
        tables=tables,
        stages=COUNTS,
        costs=COSTS,
        sidecars=SIDECARS,
    )
    drawn = plots.render(facts)
    plots.save(PLOTS, drawn)
    page.write(REPORT, facts, drawn)
    io.write_text(TABLE, "Scores, zero-shot unless examples are named\n" + results.text_table(facts) + "\n")
    _log.info("report: %s", REPORT)


if __name__ == "__main__":
    log.run_stage("report", main)
