"""What grows how with the work: time and memory of searches, store, and label and filter, on synthetic data.

Each part runs at several sizes, each in a process of its own, so that its largest memory is its own. Vectors have the
dimensions of the default's dense teacher. A plot goes to `--plot`, or nowhere.

    top-k    exhaustive search of `QUERIES` queries among n documents, vectors on disk
    index    building an IVF-PQ index of n documents, and the same search through it
    near     finding near duplicates among n documents of 20 to 60 words, a tenth of which are one
    bm25     indexing n documents of 20 to 60 words, and search by `QUERIES` queries of 7
    store    saving n vectors in shards, then finding all of them again
    tables   `label` and `filter` of n queries with 100 candidates each, from tables on disk to tables on disk

Usage: python -m benchmarks.growth [--sizes 1000 10000 100000 1000000] [--parts ...] [--plot growth.svg]
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import yaml
from numpy.typing import NDArray

from anna import fingerprints, parts, schemas
from anna.shards import Values
from anna.store import Parts, Store
from benchmarks.side_by_side import Row, report

DIMS, QUERIES, DEPTH, CANDIDATES = 384, 1_000, 100, 100
NUM_WORDS = 100_000
AT_ONCE = 10_000
"""Rows made at once."""

SECONDS, GIB = 300.0, 8.0
"""What `label` and `filter` of a million queries may take."""


class Cost(NamedTuple):
    """What one part took at one size."""

    seconds: float
    memory_mib: float
    """Above what the process had before."""


def vectors(num_rows: int) -> Parts:
    """Yield random unit vectors around a thousand centres, the same for the same rows."""
    centres = np.random.default_rng(0).normal(size=(1000, DIMS))
    for start in range(0, num_rows, AT_ONCE):
        rows = np.arange(start, min(start + AT_ONCE, num_rows))
        rng = np.random.default_rng(start + 1)
        made = centres[rng.integers(0, 1000, len(rows))] + rng.normal(size=(len(rows), DIMS))
        yield rows, np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), dtype=np.float32)


def run_top_k(folder: Path, size: int) -> float:
    """Return the seconds of exhaustive search."""
    from anna.engine import Local
    from anna.teachers import retrieval
    from anna.teachers.vectors import VectorFile

    docs, asked = VectorFile(size, vectors(size), folder), VectorFile(QUERIES, vectors(QUERIES), folder)
    return timed(lambda: retrieval.search_exactly(asked, docs, DEPTH, np.full(QUERIES, -1), Local()))


def run_index(folder: Path, size: int) -> float:
    """Return the seconds of building an index and of search through it."""
    from anna.engine import Local
    from anna.teachers import retrieval
    from anna.teachers.dense import DenseParams
    from anna.teachers.vectors import VectorFile

    docs, asked = VectorFile(size, vectors(size), folder), VectorFile(QUERIES, vectors(QUERIES), folder)
    params = DenseParams.load().index.model_copy(update={"min_recall": 0.0, "sample": 1})
    none = np.full(QUERIES, -1)

    def search() -> None:
        retrieval.search_by_index("growth", asked, docs, depth=DEPTH, excluded_Q=none, params=params, where=Local())

    return timed(search)


def run_bm25(folder: Path, size: int) -> float:
    """Return the seconds of indexing texts and of search among them."""
    from anna.teachers.bm25 import bm25_search

    rng = np.random.default_rng(0)
    docs, asked = texts(rng, rng.integers(20, 61, size)), texts(rng, np.full(QUERIES, 7))
    names = [[f"{mark}{number:09d}" for number in range(len(part))] for mark, part in (("d", docs), ("q", asked))]
    return timed(lambda: bm25_search(names[0], docs, names[1], asked, k1=1.5, b=0.75, depth=DEPTH))


def run_near(folder: Path, size: int) -> float:
    """Return the seconds of finding near duplicates; a tenth of the texts are one, with a word changed."""
    from anna.corpus.dedup import near_duplicates

    rng = np.random.default_rng(0)
    docs = texts(rng, rng.integers(20, 61, size))
    for place in range(10, size, 10):
        docs[place] = f"{docs[place - 1]} changed"
    return timed(lambda: near_duplicates(docs, 0.8))


def texts(rng: np.random.Generator, lengths: NDArray[np.int64]) -> list[str]:
    """Return texts of so many words; a word is as frequent as its rank is low."""
    words, shares = (
        np.array([f"w{number:06d}" for number in range(NUM_WORDS)]),
        1 / np.arange(1.0, NUM_WORDS + 1) ** 0.9,
    )
    drawn = np.split(words[rng.choice(NUM_WORDS, lengths.sum(), p=shares / shares.sum())], np.cumsum(lengths)[:-1])
    return [" ".join(part) for part in drawn]


def run_store(folder: Path, size: int) -> float:
    """Return the seconds of saving vectors, as a teacher's batches come, and of finding them all."""
    store = Store("growth", {"size": size}, folder)
    keys = fingerprints.text_keys((str(number),) for number in range(size))

    def compute(missing: np.ndarray) -> Iterator[tuple[range, Values]]:
        for places, values in vectors(len(missing)):
            yield range(int(places[0]), int(places[-1]) + 1), values

    def fetch() -> None:
        for _ in range(2):
            for _ in store.fetch(keys, compute, Counter()):
                pass

    return timed(fetch)


def run_tables(folder: Path, size: int) -> float:
    """Return the seconds of the stages `label` and `filter`."""
    import os

    from stages import filter as select
    from stages import label

    (folder / "params.yaml").write_text(yaml.safe_dump(settings()), encoding="utf-8")
    write_tables(folder, size)
    os.chdir(folder)

    def both() -> None:
        label.main()
        select.main()

    return timed(both)


def settings() -> dict[str, object]:
    """Return the sections of the default's params that the two stages read."""
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    params["label"].update(min_entropy_share=0.0, max_entropy_share=1.0)
    return {name: params[name] for name in ("retrieve_bm25", "label", "filter")}


def write_tables(folder: Path, num_queries: int) -> None:
    """Write as many documents as queries, one positive each, and three runs of half the candidates."""
    docs, queries = ids("d", 0, max(num_queries, 1000)), ids("q", 0, num_queries)
    none = pa.nulls(len(docs), pa.string())
    corpus = {"doc_id": docs, "task": same("Growth", len(docs)), "text": docs, "label": none}
    parts.write(folder / "data/corpus.parquet", [pa.table(corpus)], schemas.CORPUS)
    asked = {name: same(value, num_queries) for name, value in (("task", "Growth"), ("kind", "retrieval"))}
    asked |= {"query_id": queries, "split": same("train", num_queries), "text": queries}
    asked["label"] = pa.nulls(num_queries, pa.string())
    parts.write(folder / "data/queries.parquet", [pa.table(asked)], schemas.QUERIES)
    judged = {"query_id": queries, "doc_id": docs.slice(0, num_queries), "relevance": np.ones(num_queries, np.int8)}
    parts.write(folder / "data/qrels.parquet", [pa.table(judged)], schemas.QRELS)
    for seed, name in enumerate(("bm25", "dense", "reranker")):
        parts.write(folder / f"data/{name}_run.parquet", run_parts(docs, num_queries, seed % 2), schemas.RUN)


def run_parts(docs: pa.Array, num_queries: int, seed: int) -> Iterator[pa.Table]:
    """Yield a run in parts: half the candidates of each query, in steps of the run's own through the documents."""
    depth = CANDIDATES // 2
    for start in range(0, num_queries, AT_ONCE):
        rows = np.arange(start, min(start + AT_ONCE, num_queries))
        places_QK = (rows[:, None] + np.arange(depth) * (2 * seed + 1) * 7 + seed * 5) % len(docs)
        scores_QK = -np.sort(-np.random.default_rng(start).random((len(rows), depth)), axis=1)
        yield pa.table(
            {
                "query_id": ids("q", start, len(rows)).take(pa.array(np.repeat(np.arange(len(rows)), depth))),
                "rank": np.tile(np.arange(1, depth + 1, dtype=np.int32), len(rows)),
                "doc_id": docs.take(pa.array(places_QK.ravel())),
                "score": scores_QK.ravel().astype(np.float32),
            }
        )


def ids(mark: str, start: int, count: int) -> pa.Array:
    """Return ids in the form of ingest's."""
    return pa.array([f"Growth:{mark}:{number:016x}" for number in range(start, start + count)], pa.string())


def same(value: str, count: int) -> pa.Array:
    """Return a column of one value."""
    return pa.repeat(pa.scalar(value), count)


def timed(act: Callable[[], object]) -> float:
    """Return how many seconds `act` took."""
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


PARTS: dict[str, Callable[[Path, int], float]] = {
    "top-k": run_top_k,
    "index": run_index,
    "near": run_near,
    "bm25": run_bm25,
    "store": run_store,
    "tables": run_tables,
}


def measure(part: str, size: int, folder: Path) -> Cost:
    """Run a part in this process."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = PARTS[part](folder, size)
    return Cost(seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Return how the value grows from the last size but one to the last: with which power of the size."""
    return float(np.log(values[-1] / values[-2]) / np.log(sizes[-1] / sizes[-2]))


def summarise(sizes: Sequence[int], costs: dict[str, list[Cost]]) -> dict[str, Row]:
    """Return how each part grows, and what the largest tables took: less is better, so the ratio is target / ours."""
    rows = {}
    for part, own in costs.items():
        if len(sizes) < 2:
            continue
        power = exponent(sizes, [cost.seconds for cost in own])
        rows[f"{part}: time grows with this power of the size"] = Row(power, None, 1.15 / power, 1.15)
        power = exponent(sizes, [max(cost.memory_mib, 1.0) for cost in own])
        rows[f"{part}: memory grows with this power of the size"] = Row(power, None, 0.5 / max(power, 0.01), 0.5)
    if "tables" in costs and sizes[-1] >= 1_000_000:
        last = costs["tables"][-1]
        rows["label and filter of a million queries, seconds"] = Row(
            last.seconds, None, SECONDS / last.seconds, SECONDS
        )
        gib = last.memory_mib / 1024
        rows["label and filter of a million queries, GiB"] = Row(gib, None, GIB / gib, GIB)
    return rows


def draw(sizes: Sequence[int], costs: dict[str, list[Cost]], path: Path) -> None:
    """Plot seconds and memory against the size, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), Cost._fields, strict=True):
        for part, own in costs.items():
            axes.loglog(sizes, [max(getattr(cost, name), 1e-3) for cost in own], marker="o", label=part)
        axes.set(xlabel="documents, or queries of 100 candidates", ylabel=name.replace("_mib", ", MiB"))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path)


def main() -> None:
    """Measure, and print a table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    Path("runs").mkdir(exist_ok=True)
    context, costs = multiprocessing.get_context("spawn"), dict[str, list[Cost]]()
    sys.stdout.write("| part | size | seconds | MiB |\n|---|---|---|---|\n")
    for part in arguments.parts:
        for size in sorted(arguments.sizes):
            with tempfile.TemporaryDirectory(dir="runs") as name, ProcessPoolExecutor(1, context) as pool:
                cost = pool.submit(measure, part, size, Path(name).resolve()).result()
            costs.setdefault(part, []).append(cost)
            sys.stdout.write(f"| {part} | {size:,} | {cost.seconds:.2f} | {cost.memory_mib:,.0f} |\n")
            sys.stdout.flush()
    if arguments.plot:
        draw(sorted(arguments.sizes), costs, arguments.plot)
    sys.stdout.write(report(summarise(sorted(arguments.sizes), costs)) + "\n")


if __name__ == "__main__":
    main()
