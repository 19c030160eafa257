import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from anna import io, schemas
from anna.evaluation.tasks import EvalTables
from anna.modeling.encoder_config import EncoderConfig, TaskPrompt
from anna.modeling.student import load_student
from anna.prompts import Example

ANIMALS = ["cat", "dog", "cow", "hen", "pig", "fox", "owl", "bat"]
TOOLS = ["saw", "axe", "nail", "drill", "file", "lathe", "plane", "vice"]

TYPES = {
    "Farm": "Retrieval",
    "Shelf": "Reranking",
    "Alike": "STS",
    "Same": "PairClassification",
    "Kinds": "Classification",
    "Heaps": "Clustering",
    "Digest": "Summarization",
}


def hash_embed(texts: Sequence[str], prefix: str) -> NDArray[np.float32]:
    """Return unit vectors that are sums of one random vector per word: texts that share words are near."""
    vectors = np.zeros((len(texts), 32), dtype=np.float32)
    for row, text in enumerate(texts):
        for word in (prefix + text).split():
            seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest())
            vectors[row] += np.random.default_rng(seed).standard_normal(32).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def table(schema: pa.Schema, rows: list[tuple[object, ...]]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema=schema)


def search_rows() -> tuple[list, list, list]:
    corpus = [("Farm", f"Farm:d:{word}", f"the {word} eats here") for word in ANIMALS]
    queries = [("Farm", f"Farm:q:{word}", f"where is the {word}") for word in ANIMALS[:4]]
    qrels = [("Farm", f"Farm:q:{word}", f"Farm:d:{word}", 1) for word in ANIMALS[:4]]
    corpus += [("Shelf", f"Shelf:d:{word}", f"a {word} lies here") for word in TOOLS]
    queries += [("Shelf", f"Shelf:q:{word}", f"hand me the {word}") for word in TOOLS[:3]]
    qrels += [("Shelf", f"Shelf:q:{q}", f"Shelf:d:{d}", int(q == d)) for q in TOOLS[:3] for d in TOOLS[:5]]
    return corpus, queries, qrels


@pytest.fixture
def tables() -> EvalTables:
    """Toy tables with one task of each of the seven types."""
    corpus, queries, qrels = search_rows()
    pairs = [
        ("Alike", f"Alike:p:{i}", f"the {a} sees the {b}", f"the {a} sees the {c}", float(i % 6))
        for i, (a, b, c) in enumerate(zip(ANIMALS, TOOLS, TOOLS[1:] + TOOLS[:1], strict=True))
    ]
    pairs += [
        ("Same", f"Same:p:{i}", a, a if i % 2 else b, float(i % 2))
        for i, (a, b) in enumerate(zip(ANIMALS, TOOLS, strict=True))
    ]
    words = [(word, "animal") for word in ANIMALS] + [(word, "tool") for word in TOOLS]
    labelled = [
        ("Kinds", f"Kinds:t:{split}{word}", split, f"this {label} is a {word}", label)
        for split in ("train", "test")
        for word, label in words
    ]
    labelled += [("Heaps", f"Heaps:t:{word}", "test", f"{label} {word}", label) for word, label in words]
    summaries = [
        ("Digest", f"Digest:t:{a}", f"the {a} has a {b}", [f"{a} has {b}", f"{b} has nothing"], [1.0, 0.0])
        for a, b in zip(ANIMALS, TOOLS, strict=True)
    ]
    rows = (corpus, queries, qrels, pairs, labelled, summaries)
    return {name: table(schema, own) for (name, schema), own in zip(schemas.EVAL_TABLES.items(), rows, strict=True)}


@pytest.fixture
def config() -> EncoderConfig:
    example = Example("where is the fox", "the fox eats here")
    tasks = {
        name: TaskPrompt(
            instruction=f"do {name}", symmetric=kind not in ("Retrieval", "Reranking"), examples=(example,)
        )
        for name, kind in TYPES.items()
    }
    return EncoderConfig(base="tiny", layers=2, max_tokens=256, example_tokens=16, tasks=tasks)


@pytest.fixture
def exported(tmp_path: Path, tiny_checkpoint: Path, config: EncoderConfig) -> Path:
    """A folder like the exported model's, with random weights."""
    folder = tmp_path / "models" / "sentence-transformer"
    for part in load_student(tiny_checkpoint, 2):
        part.save_pretrained(folder)
    config.save(folder)
    return folder


def write_tables(folder: Path, tables: EvalTables) -> None:
    """Write the tables where the stage reads them."""
    for name, content in tables.items():
        io.write(folder / f"{name}.parquet", content, schemas.EVAL_TABLES[name])
