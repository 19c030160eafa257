"""Held-out tasks as the tables of data/eval."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from anna import schemas
from anna.corpus.held_out import HeldOutTask
from anna.corpus.ids import text_id
from anna.corpus.units import LABELLED, PAIRS, Unit
from anna.prompts import Example

SCHEMAS = {**schemas.EVAL_TABLES, "examples": schemas.EXAMPLES}
"""The tables of data/eval, by file name."""


def held_out_tables(
    tasks: Iterable[HeldOutTask], examples: Mapping[str, Sequence[Example]] | None = None
) -> dict[str, pa.Table]:
    """Return all tables of data/eval by name, empty where no task fills them; `examples` are of mteb's own tasks."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in SCHEMAS}
    shown = dict(examples or {})
    for task in tasks:
        for name, filled in _rows(task).items():
            rows[name].extend(filled)
        shown[task.source.task] = task.examples
    rows["examples"] = [
        {"task": name, "position": position, "query": example.query, "response": example.response}
        for name, of_task in shown.items()
        for position, example in enumerate(of_task)
    ]
    return {name: pa.Table.from_pylist(rows[name], schema=schema) for name, schema in SCHEMAS.items()}


def _rows(task: HeldOutTask) -> dict[str, list[dict[str, Any]]]:
    name = task.source.task
    if task.source.type in LABELLED:
        splits = (("train", task.fitted), ("test", task.units))
        return {"labelled": [_labelled(name, split, unit) for split, units in splits for unit in units]}
    if task.source.type in PAIRS:
        return {"pairs": [_pair(name, unit) for unit in task.units]}
    if task.source.type == "Summarization":
        return {"summaries": [_summaries(name, unit) for unit in task.units]}
    return {
        "corpus": [{"task": name, "doc_id": text_id(name, "d", doc), "text": doc} for doc in sorted(task.docs)],
        "queries": [
            {"task": name, "query_id": text_id(name, "q", unit.text), "text": unit.text} for unit in task.units
        ],
        "qrels": [
            {
                "task": name,
                "query_id": text_id(name, "q", unit.text),
                "doc_id": text_id(name, "d", other),
                "relevance": int(score),
            }
            for unit in task.units
            for other, score in zip(unit.others, unit.scores, strict=True)
        ],
    }


def _labelled(name: str, split: str, unit: Unit) -> dict[str, Any]:
    return {
        "task": name,
        "text_id": text_id(name, "t", unit.text),
        "split": split,
        "text": unit.text,
        "label": unit.label,
    }


def _pair(name: str, unit: Unit) -> dict[str, Any]:
    return {
        "task": name,
        "pair_id": text_id(name, "p", unit.text, *unit.others),
        "text1": unit.text,
        "text2": unit.others[0],
        "score": unit.scores[0],
    }


def _summaries(name: str, unit: Unit) -> dict[str, Any]:
    return {
        "task": name,
        "text_id": text_id(name, "t", unit.text),
        "source": unit.text,
        "summaries": list(unit.others),
        "relevance": list(unit.scores),
    }
