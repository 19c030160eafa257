"""Everything the report shows, read from metrics and tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from anna import io
from anna.errors import InputError
from anna.reporting.curves import Curve, Validation, number, read_curve, read_rows, read_validation
from anna.reporting.distributions import Distributions


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


@dataclass(frozen=True)
class Facts:
    """Everything the report shows."""

    summary: Mapping[str, Mapping[str, float]]
    """metrics/mteb.json: model in its mode -> mean and categories."""
    means: Mapping[str, Mapping[str, float]]
    """metrics/scores.csv: model in its mode -> category -> mean score."""
    tasks: Mapping[str, Mapping[str, Mapping[str, Any]]]
    """metrics/mteb_tasks.json: model in its mode -> task -> type, metric, score."""
    leaderboard: Mapping[str, Any]
    """metrics/leaderboard.json: notes, and where the public table was used, standings and neighbours."""
    contamination: Mapping[str, Any]
    """metrics/contamination.json: mteb's zero-shot share, and the tasks that were trained on."""
    curve: Curve
    validation: Validation
    distributions: Distributions
    ingest_drops: Sequence[IngestDrop]
    stages: Mapping[str, Mapping[str, Any]]
    """Stage -> what it counted."""
    costs: Mapping[str, Mapping[str, Any]]
    """Stage -> seconds, peak_memory_mib, cpus."""
    tables: Sequence[TableSize]


def read(
    *,
    summary: Path,
    means: Path,
    tasks: Path,
    leaderboard: Path,
    contamination: Path,
    curve: Path,
    validation: Path,
    distributions: Distributions,
    ingest_drops: pa.Table,
    stages: Sequence[Path],
    costs: Sequence[Path],
    sidecars: Sequence[Path],
) -> Facts:
    """Return the facts.

    Args:
        summary: metrics/mteb.json.
        means: metrics/scores.csv.
        tasks: metrics/mteb_tasks.json.
        leaderboard: metrics/leaderboard.json.
        contamination: metrics/contamination.json.
        curve: metrics/training.csv.
        validation: metrics/validation.csv.
        distributions: Of scores and labels.
        ingest_drops: Table INGEST_DROPS.
        stages: Metrics of each stage, named by it.
        costs: Cost of each stage, named by it.
        sidecars: Descriptions of tables, in the order shown.

    Raises:
        InputError: If a file is missing or not what its stage writes.
    """
    return Facts(
        summary=io.read_json(summary),
        means=read_means(means),
        tasks={
            _column(model, mode): scored
            for model, modes in io.read_json(tasks).items()
            for mode, scored in modes.items()
        },
        leaderboard=io.read_json(leaderboard),
        contamination=io.read_json(contamination),
        curve=read_curve(curve),
        validation=read_validation(validation),
        distributions=distributions,
        ingest_drops=[IngestDrop(**row) for row in ingest_drops.to_pylist()],
        stages={path.stem: io.read_json(path) for path in stages},
        costs={path.stem: io.read_json(path) for path in costs},
        tables=[table_size(path, io.read_json(path)) for path in sidecars],
    )


def read_means(path: Path) -> dict[str, dict[str, float]]:
    """Return mean scores by model and category.

    Raises:
        InputError: If the file is missing or not a table of scores.
    """
    result: dict[str, dict[str, float]] = {}
    for model, category, value in read_rows(path, ("model", "category", "score")):
        result.setdefault(model, {})[category] = number(path, value)
    return result


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


def _column(model: str, mode: str) -> str:
    return model if mode == "zero_shot" else f"{model}_{mode}"
