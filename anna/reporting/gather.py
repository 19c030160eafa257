"""Everything the report shows, read from metrics and tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from anna import io, schemas, scores
from anna.errors import InputError
from anna.params import HELD_OUT
from anna.reporting import ablation
from anna.reporting.curves import Curve, Validation, read_curve, read_validation
from anna.reporting.distributions import Distributions
from anna.reporting.sizes import Sizes


class IngestDrop(NamedTuple):
    """Rows of a source that were not kept."""

    task: str
    part: str
    reason: str
    rows: int
    example: str


class TableSize(NamedTuple):
    """What a sidecar says of its table."""

    path: str
    rows: int
    columns: int
    provenance: str


TABLES: Mapping[str, Sequence[str]] = {
    "ingest": (
        "corpus",
        "queries",
        "qrels",
        "ingest_drops",
        "eval/corpus",
        "eval/queries",
        "eval/qrels",
        "eval/pairs",
        "eval/labelled",
        "eval/summaries",
        "eval/examples",
    ),
    "retrieve_bm25": ("bm25_run",),
    "retrieve_dense": ("dense_run", "dense_vectors"),
    "rerank": ("reranker_run",),
    "label": ("labels",),
    "filter": ("groups", "drops"),
}
"""Tables of each stage, under `data/`; the stages that are absent write models and scores."""


class Files(NamedTuple):
    """Where the facts lie, each under the name that it has in `Facts`; INGEST_DROPS is a table."""

    tasks: Path
    leaderboard: Path
    contamination: Path
    curve: Path
    validation: Path
    ingest_drops: Path
    stages: tuple[Path, ...]
    costs: tuple[Path, ...]
    sidecars: tuple[Path, ...]
    """Of the tables, in the order shown."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of them."""
        return tuple(path for part in self for path in ([part] if isinstance(part, Path) else part))


@dataclass(frozen=True)
class Facts:
    """Everything the report shows."""

    summary: Mapping[str, Mapping[str, float]]
    """Model in its mode -> mean, and categories as `scores.summary` chooses them."""
    means: Mapping[str, Mapping[str, float]]
    """Model in its mode -> category -> mean score."""
    tasks: Mapping[str, Mapping[str, Mapping[str, Any]]]
    """Model in its mode -> task -> type, metric, score."""
    leaderboard: Mapping[str, Any]
    """Notes, and where the public table was used, standings and neighbours."""
    contamination: Mapping[str, Any]
    """mteb's zero-shot share, and the tasks that were trained on."""
    runs: ablation.Runs
    """Of these parameters, with other seeds and without parts of the recipe; {} where none were made."""
    curve: Curve
    validation: Validation
    distributions: Distributions
    ingest_drops: Sequence[IngestDrop]
    stages: Mapping[str, Mapping[str, Any]]
    """Stage -> what it counted."""
    costs: Mapping[str, Mapping[str, Any]]
    """Stage -> seconds, peak_memory_mib, cpus."""
    tables: Sequence[TableSize]
    params: Mapping[str, Mapping[str, Any]]
    """Sections of params, those of `ablation.RECIPE`."""

    @property
    def sizes(self) -> Sizes:
        """What `ingest` counted of the held-out tasks, if these are what was scored."""
        is_held_out = self.leaderboard.get("benchmark") == HELD_OUT
        sizes: Sizes = self.stages.get("ingest", {}).get("held_out", {}) if is_held_out else {}
        return sizes


def read(
    files: Files, *, distributions: Distributions, runs: ablation.Runs, params: Mapping[str, Mapping[str, Any]]
) -> Facts:
    """Return the facts: what the files say, and what is counted and read elsewhere.

    Raises:
        InputError: If a file is missing or not what its stage writes.
    """
    detail = io.read_json(files.tasks)
    scored = scores.from_detail(detail)
    return Facts(
        summary=scores.summary(scored),
        means=scores.by_category(scored),
        tasks={scores.column(model, mode): own for model, modes in detail.items() for mode, own in modes.items()},
        leaderboard=io.read_json(files.leaderboard),
        contamination=io.read_json(files.contamination),
        runs=runs,
        curve=read_curve(files.curve),
        validation=read_validation(files.validation),
        distributions=distributions,
        ingest_drops=[IngestDrop(**row) for row in io.read(files.ingest_drops, schemas.INGEST_DROPS).to_pylist()],
        stages={path.stem: io.read_json(path) for path in files.stages},
        costs={path.stem: io.read_json(path) for path in files.costs},
        tables=[table_size(path, io.read_json(path)) for path in files.sidecars],
        params=params,
    )


def table_size(path: Path, sidecar: Mapping[str, Any]) -> TableSize:
    """Return what the sidecar at `path` says.

    Raises:
        InputError: If it has no rows or fields.
    """
    if not {"rows", "fields"} <= set(sidecar):
        raise InputError(f"{path} has {sorted(sidecar)}, expected rows and fields; run: dvc repro")
    told = {key: value for key, value in sidecar.items() if key not in ("table", "key", "rows", "fields")}
    provenance = ", ".join(f"{key} {value}" for key, value in told.items() if not isinstance(value, dict))
    return TableSize(path.with_suffix(".parquet").as_posix(), int(sidecar["rows"]), len(sidecar["fields"]), provenance)
