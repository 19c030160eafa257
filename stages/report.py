"""Put scores, training curve, labels, drops and costs on one self-contained page, with the figures as files beside it.

Seconds. Reads metrics and tables and computes no score: everything in `anna/reporting` is safe to change, but for the
model card. `export` writes it first; here it is written with scores, time and energy, to be published with the model.
"""

import logging
from pathlib import Path

from anna import io, log, schemas
from anna.params import STAGES, recorded
from anna.reporting import ablation, card, distributions, gather, margins, page, plots, results
from anna.teachers import blocks, calibration
from anna.teachers.filtering import FilterParams

FILES = gather.Files(
    tasks=Path("metrics/mteb_tasks.json"),
    leaderboard=Path("metrics/leaderboard.json"),
    contamination=Path("metrics/contamination.json"),
    curve=Path("metrics/training.csv"),
    validation=Path("metrics/validation.csv"),
    ingest_drops=Path("data/ingest_drops.parquet"),
    stages=tuple(Path(f"metrics/{stage}.json") for stage in STAGES[:-2]),
    costs=tuple(Path(f"metrics/cost/{stage}.json") for stage in STAGES[:-1]),
    sidecars=tuple(Path(f"data/{table}.json") for tables in gather.TABLES.values() for table in tables),
)
MODEL = Path("models/sentence-transformer")
CORPUS, QUERIES = Path("data/corpus.parquet"), Path("data/queries.parquet")
QRELS, RERANKER_RUN = Path("data/qrels.parquet"), Path("data/reranker_run.parquet")
LABELS, GROUPS = Path("data/labels.parquet"), Path("data/groups.parquet")
DROPS = Path("data/drops.parquet")
REPORT, PLOTS, TABLE = Path("reports/index.html"), Path("reports/plots"), Path("reports/results.txt")
CARD = Path("reports/model_card.md")
RUNS = Path("benchmarks/ablation.json")

WATCHED = (RUNS,)
"""What `benchmarks.ablation` writes and no stage: when it changes, DVC runs this stage again."""

SOURCES = {"labels": (LABELS, schemas.LABELS), "groups": (GROUPS, schemas.GROUPS), "drops": (DROPS, schemas.DROPS)}
"""What is read in blocks of queries."""
CANDIDATES = (CORPUS, QUERIES, QRELS, RERANKER_RUN)
"""What the margins are counted from, besides the labels."""
INPUTS = (*FILES.paths, MODEL, LABELS, GROUPS, DROPS, *CANDIDATES)
OUTPUTS = (REPORT, PLOTS, TABLE, CARD)
PARAMS = tuple(recorded(section) for section in ablation.RECIPE)
CODE_FILES = (Path("anna/reporting/page.html.j2"), Path("anna/reporting/card.md.j2"))

_log = logging.getLogger("stages.report")  # run as __main__


def main() -> None:
    """Write page, plots, result table and model card, and say where the page lies."""
    counted = (block.rows for block in blocks.query_blocks(io.read(QUERIES, schemas.QUERIES), SOURCES))
    params = {section.section: section.load().values() for section in PARAMS}
    facts = gather.read(
        FILES, distributions=distributions.measure(LABELS, counted), runs=ablation.read(RUNS, params), params=params
    )
    drawn = [*plots.render(facts), margins.render(calibration.of_run(LABELS.parent, FilterParams.load()))]
    plots.save(PLOTS, drawn)
    io.write_text(REPORT, page.render(facts, drawn))
    io.write_text(TABLE, "Scores, zero-shot unless examples are named\n" + results.text_table(facts) + "\n")
    scored = card.Scored(
        facts.tasks,
        facts.leaderboard,
        facts.contamination,
        facts.stages["train"],
        params["evaluate"],
        facts.costs,
        facts.sizes,
    )
    io.write_text(CARD, card.render(card.Made.read(MODEL, params), scored))
    _log.info("report: %s", REPORT)


if __name__ == "__main__":
    log.run_stage("report", main)
