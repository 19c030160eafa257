"""A finished run, made up but of real shapes and sizes, with names that would break a careless page."""

import contextlib
import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from anna import fusion, io, schemas, segments
from anna.reporting import distributions, gather, plots
from anna.reporting.gather import Facts
from stages import report

HOSTILE = "<b>x & $y$"
"""A task name that must come out as text."""

TRAIN_TASKS = ("BoolQ", "HPODefinitions", "STSBenchmark", HOSTILE)

TASKS = {
    "BoolQ": ("Retrieval", "ndcg_at_10"),
    "PrivacyQA": ("Reranking", "map_at_1000"),
    "STSBenchmark": ("STS", "cosine_spearman"),
    "IMDB": ("Classification", "accuracy"),
    HOSTILE: ("Classification", "accuracy"),
    "BBCNews": ("Clustering", "v_measure"),
    "HPOSynonyms": ("PairClassification", "max_ap"),
    "FactualSummaries": ("Summarization", "cosine_spearman"),
}

SIZES = {
    "BoolQ": {"scored": 300, "docs": 5050},
    "PrivacyQA": {"scored": 49, "docs": 707},
    **{task: {"scored": 100} for task in ("STSBenchmark", "IMDB", "BBCNews", "HPOSynonyms", "FactualSummaries")},
    HOSTILE: {"scored": 4},
}
"""What ingest counted of each held-out task."""

LEVEL = {
    ("student", 0): 0.62,
    ("student", 1): 0.634,
    ("untrained", 0): 0.31,
    ("teacher", 0): 0.69,
}

RUNS = {
    "the default": {17: {"mean": 0.62, "STS": 0.8}, 18: {"mean": 0.6, "STS": 0.7}},
    "without soft labels": {17: {"mean": 0.61, "STS": 0.75}, 18: {"mean": 0.61}},
}
"""Of other seeds and of a variant, whose second run has no STS."""


@pytest.fixture(scope="session")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """What the report reads of a finished run."""
    folder = tmp_path_factory.mktemp("finished")
    write_run(folder)
    return read_facts(folder)


@pytest.fixture(scope="session")
def drawn(facts: Facts) -> list[plots.Plot]:
    """Every figure of the finished run."""
    return plots.render(facts)


@pytest.fixture
def finished_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a finished run, which is also the current one."""
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path)
    return tmp_path


def read_facts(folder: Path) -> Facts:
    """Read a run as the stage does."""
    with contextlib.chdir(folder):
        tables = {name: io.read(path, schema) for name, (path, schema) in report.SOURCES.items()}
        measured = distributions.measure(report.LABELS, [tables])
        return gather.read(report.FILES, distributions=measured, runs=RUNS, params={"evaluate": {"max_tokens": 128}})


def write_run(folder: Path, num_queries: int = 240) -> None:
    """Write everything that the report reads."""
    rng = np.random.default_rng(5)
    _write_scores(folder, rng)
    _write_curve(folder, rng)
    counts = _write_tables(folder, rng, num_queries)
    counts["ingest"] = {"held_out": {task: {**size, "drops": {}} for task, size in SIZES.items()}}
    for path in report.FILES.stages:
        io.write_json(folder / path, counts.get(path.stem, {"queries": num_queries, "rows": num_queries * 10}))
    for place, path in enumerate(report.FILES.costs):
        seconds = (9.2, 6.1, 95.0, 181.3, 1.4, 1.2, 353.8, 12.0, 128.6)[place]
        io.write_json(folder / path, {"seconds": seconds, "peak_memory_mib": 700 + 300 * place, "cpus": 2})
    _write_model(folder)
    for path in report.FILES.sidecars:
        if not (folder / path).is_file():
            io.write_json(folder / path, {"table": path.stem, "key": [], "rows": 2400, "unit": "bm25", "fields": [{}]})


def _write_scores(folder: Path, rng: np.random.Generator) -> None:
    tasks: dict[str, Any] = {}
    for (model, examples), level in LEVEL.items():
        mode = "with_examples" if examples else "zero_shot"
        tasks.setdefault(model, {})[mode] = {
            name: {"type": kind, "metric": metric, "score": round(float(level + rng.normal(0, 0.1)), 5)}
            for name, (kind, metric) in TASKS.items()
        }
    tasks["bm25"] = {"zero_shot": {"BoolQ": {"type": "Retrieval", "metric": "ndcg_at_10", "score": 0.65312}}}
    io.write_json(folder / report.FILES.tasks, tasks)
    note = "not ranked: held_out is not MTEB(eng, v2), whose public scores come with the project"
    unranked = {"benchmark": "held_out", "notes": [note], "standings": {}, "around": []}
    io.write_json(folder / report.FILES.leaderboard, unranked)
    io.write_json(
        folder / report.FILES.contamination,
        {
            "zero_shot_percentage": 87,
            "tasks": 8,
            "tasks_trained_on": 1,
            "trained_on": [HOSTILE],
            "same_source": {"HPOSynonyms": ["HPODefinitions"]},
        },
    )


def _write_model(folder: Path) -> None:
    """Write what the model card reads: params, and the two JSON files of the model."""
    tree = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text(encoding="utf-8"))
    (folder / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    examples = [{"query": "is pluto a planet", "response": "Pluto is a dwarf planet."}]
    prompt = {"instruction": "find | answers", "symmetric": False, "examples": examples}
    tasks = {"BoolQ": prompt, "STSBenchmark": prompt, "TREC": {**prompt, "symmetric": True, "examples": []}}
    encoder = {"layers": 6, "pooling": "last_token", "attention": "causal", "max_tokens": 512, "tasks": tasks}
    io.write_json(folder / report.MODEL / "encoder.json", encoder)
    config = {"architectures": ["MistralModel"], "num_hidden_layers": 6, "hidden_size": 576}
    io.write_json(folder / report.MODEL / "config.json", config)
    counts = {"queries": 3330, "steps": 105, "tokens": 234312}
    io.write_json(folder / "metrics/train.json", counts)


def _write_curve(folder: Path, rng: np.random.Generator, steps: int = 96) -> None:
    rows: list[tuple[Any, ...]] = [schemas.CURVE]
    for step in range(1, steps + 1):
        task = int(rng.integers(len(TRAIN_TASKS)))
        nce = 0.4 + 0.3 * task + 3.2 * np.exp(-step / 18) + rng.normal(0, 0.06)
        soft = 0.35 + 0.5 * np.exp(-step / 25) + rng.normal(0, 0.02)
        rate = 3e-4 * min(step / 10, (steps - step) / (steps - 10))
        rows.append(
            (
                step,
                step * 64,
                *(round(float(v), 6) for v in (nce + 3 * soft, nce, soft, 2 * soft, 0.3, 0.2 - 1 / step)),
                *(3000, 1200, round(rate, 6), round(1 + 6 * float(np.exp(-step / 9)), 6)),
                TRAIN_TASKS[task],
            )
        )
    _write_csv(folder / report.FILES.curve, rows)
    validated = [(step, step * 64, round(0.9 - 0.5 / step, 6)) for step in range(20, steps, 20)]
    _write_csv(folder / report.FILES.validation, [("step", "queries", "ndcg_at_10"), *validated])


def _write_tables(folder: Path, rng: np.random.Generator, num_queries: int) -> dict[str, dict[str, Any]]:
    """Write labels, groups and drops of queries with 12 candidates, and return the two stages' counts."""
    size, margin = 12, 0.4
    query_ids = [f"{TRAIN_TASKS[n % len(TRAIN_TASKS)]}:q:{n:016x}" for n in range(num_queries)]
    starts = np.arange(0, size * num_queries, size)
    fused_QC = np.sort(rng.normal(0, 1.4, (num_queries, size)))[:, ::-1]
    soft_QC = fusion.soften(fused_QC.ravel(), 1.0, segments.find_starts(np.repeat(starts, size))).reshape(
        fused_QC.shape
    )
    labels, groups, drops = [], [], []
    for query, fused, soft in zip(query_ids, fused_QC.tolist(), soft_QC.tolist(), strict=True):
        positive = int(rng.choice(4, p=[0.8, 0.12, 0.05, 0.03]))
        docs = [f"{query.replace(':q:', ':d:')}{rank:02d}" for rank in range(size)]
        labels += [
            {
                "query_id": query,
                "rank": rank + 1,
                "doc_id": docs[rank],
                "fused_score": fused[rank],
                "soft_label": soft[rank],
            }
            for rank in range(size)
        ]
        kept = [rank for rank in range(size) if fused[positive] - fused[rank] > margin][:1]
        share = soft[positive] + soft[kept[0]]
        groups.append(
            {
                "query_id": query,
                "positive_ids": [docs[positive]],
                "negative_ids": [docs[kept[0]]],
                "soft_labels": [soft[positive] / share, soft[kept[0]] / share],
            }
        )
        for rank in range(size):
            reason = "beyond_quota" if rank > kept[0] else "inside_margin" if rank > positive else "above_positive"
            if rank != kept[0]:
                reason = "labelled_positive" if rank == positive else reason
                gap = fused[positive] - fused[rank]
                drops.append(
                    {"query_id": query, "doc_id": docs[rank], "reason": reason, "margin": gap, "score": fused[rank]}
                )
    ingest = [
        {"task": task, "part": part, "reason": reason, "rows": rows, "example": "line 7: <script>alert(1)</script>"}
        for task, part, reason, rows in (
            ("BoolQ", "train", "beyond_rows", 9127),
            ("BoolQ", "train", "in_held_out", 214),
            ("BoolQ", "held_out", "beyond_rows", 2900),
            (HOSTILE, "train", "near_duplicate_document", 871),
            (HOSTILE, "train", "empty_text", 3),
        )
    ]
    positives = [drop for drop in drops if drop["reason"] == "labelled_positive"]
    for path, rows, schema in (
        (report.CORPUS, [_doc(label["doc_id"]) for label in labels], schemas.CORPUS),
        (report.QUERIES, [_query(query) for query in query_ids], schemas.QUERIES),
        (report.QRELS, [{**drop, "relevance": 1} for drop in positives], schemas.QRELS),
        (report.LABELS, labels, schemas.LABELS),
        (report.GROUPS, groups, schemas.GROUPS),
        (report.DROPS, drops, schemas.DROPS),
        (report.FILES.ingest_drops, ingest, schemas.INGEST_DROPS),
    ):
        io.write(folder / path, pa.Table.from_pylist(rows, schema=schema), schema)
    per_task = num_queries // len(TRAIN_TASKS)
    counted = {
        reason: sum(drop["reason"] == reason for drop in drops) for reason in sorted({d["reason"] for d in drops})
    }
    label = {"queries": per_task, "candidates": per_task * size, "positive_first": 0.80123, "entropy_share": 0.7034}
    return {
        "label": {
            **label,
            "queries": num_queries,
            "candidates": num_queries * size,
            "tasks": dict.fromkeys(TRAIN_TASKS, label),
        },
        "filter": {
            "queries": num_queries,
            "groups": num_queries,
            "negatives": num_queries,
            "suspected_missing_positives": counted["above_positive"],
            "drops": counted,
            "query_drops": {"weak_positive": 12, "too_few_negatives": 0},
            "tasks": {task: {"groups": per_task, "negatives": per_task} for task in TRAIN_TASKS},
        },
    }


def _doc(doc_id: str) -> dict[str, Any]:
    return {"doc_id": doc_id, "task": doc_id.partition(":")[0], "text": doc_id, "label": None}


def _query(query_id: str) -> dict[str, Any]:
    task = query_id.partition(":")[0]
    return {"query_id": query_id, "task": task, "kind": "retrieval", "split": "train", "text": query_id, "label": None}


def _write_csv(path: Path, rows: list[tuple[Any, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
