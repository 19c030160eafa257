"""Mining hard negatives, ours against sentence-transformers' `mine_hard_negatives`, in one run.

Same passages and queries (the default's text: BoolQ and Wikipedia), same dense model, same cross-encoder, as many pairs
for the cross-encoder to score per query. The cross-encoder is the dense model with a head of random weights: none with
a licence arrives through the package index, and speed does not depend on weights. Both sides run as a user runs them,
in processes of their own whose start counts: first from nothing, then once more with another margin. Ours computes in
`--dtype`, the peer in float32, as it comes. The peer's texts are cut, outside its clock, to what our cross-encoder
reads of them, so that both compute the same tokens.

Usage: python -m benchmarks.mine [--docs 20000] [--queries 5000] [--dtype auto]
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa
import yaml

from anna import io, schemas
from anna.folding import normalise
from anna.modeling.hardware import Dtype
from anna.origins import fetch_model
from anna.teachers import cross_encoder
from anna.teachers.dense import DenseParams
from benchmarks import side_by_side
from benchmarks.side_by_side import Row
from benchmarks.texts import Texts, make_cross_encoder, read_texts

REPO = Path(__file__).parents[1]
TASK = "Mined"
MARGINS = (0.05, 0.1)
DOC_TOKENS, QUERY_TOKENS, BATCH_SIZE = 64, 32, 32
PEER_TEXTS = "peer_texts.json"
NUM_CANDIDATES = 12
"""Pairs per query that the peer's cross-encoder scores for one negative, one positive and a margin, by its own rule."""


class Round(NamedTuple):
    """What one side did."""

    seconds: float
    memory_mib: float
    """Largest resident memory of any of its processes."""


def write_project(folder: Path, texts: Texts, dense: Path, cross: Path, dtype: Dtype) -> None:
    """Write the tables and params that our stages read."""
    ids = {doc: f"{TASK}:d:{place:07}" for place, doc in enumerate(texts.docs)}
    queries = [f"{TASK}:q:{place:07}" for place in range(len(texts.queries))]
    columns = {"query_id": queries, "task": TASK, "kind": "retrieval", "split": "train", "text": texts.queries}
    corpus = pl.DataFrame({"doc_id": list(ids.values()), "task": TASK, "text": texts.docs, "label": None})
    asked = pl.DataFrame({**columns, "label": None})
    judged = pl.DataFrame({"query_id": queries, "doc_id": [ids[doc] for doc in texts.positives], "relevance": 1})
    for name, rows, schema in (
        ("corpus", corpus, schemas.CORPUS),
        ("queries", asked, schemas.QUERIES),
        ("qrels", judged, schemas.QRELS),
    ):
        io.write(folder / f"data/{name}.parquet", to_arrow(rows), schema)
    params: dict[str, Any] = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    params["retrieve_bm25"]["depth"] = params["retrieve_dense"]["depth"] = NUM_CANDIDATES
    params["retrieve_dense"].update(model=local(dense), max_tokens=DOC_TOKENS, dtype=dtype)
    params["rerank"].update(kind="cross_encoder", model=local(cross), depth=NUM_CANDIDATES, queries_per_task=None)
    params["rerank"].update(dtype=dtype, doc_tokens=DOC_TOKENS, query_tokens=QUERY_TOKENS, tokens_per_batch=2048)
    params["label"].update(min_entropy_share=0.0, max_entropy_share=1.0)
    params["filter"].update(rule="percent", margin=MARGINS[0], negatives_per_query=1, min_negatives=1)
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def to_arrow(rows: pl.DataFrame) -> pa.Table:
    """Return a frame as an Arrow table, columns of null as text."""
    return rows.with_columns(pl.col(pl.Null).cast(pl.String)).to_arrow()


def local(path: Path) -> dict[str, str]:
    """Return the origin of a model on this disk."""
    return {"kind": "files", "path": str(path.resolve())}


def run_ours(folder: Path, stages: Sequence[str]) -> Round:
    """Run stages, each in a process of its own as DVC does."""
    started = time.perf_counter()
    for stage in stages:
        run(["-m", f"stages.{stage}"], folder)
    seconds = time.perf_counter() - started
    costs = [io.read_json(folder / f"metrics/cost/{stage}.json") for stage in stages]
    return Round(seconds, max(cost["peak_memory_mib"] for cost in costs))


def run_peer(folder: Path, margin: float) -> Round:
    """Run the peer in a process of its own."""
    started = time.perf_counter()
    run(["-m", "benchmarks.mine", "--peer", str(margin)], folder)
    seconds = time.perf_counter() - started
    return Round(seconds, io.read_json(folder / "peer.json")["peak_memory_mib"])


def run(arguments: Sequence[str], folder: Path) -> None:
    """Run Python in `folder`.

    Through a shell, because Linux counts the memory of the process that starts another as that one's peak.
    """
    command = ["sh", "-c", '"$0" "$@"; exit $?', sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(REPO)}, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed")


def mine_as_peer(folder: Path, margin: float) -> None:
    """Mine with the peer, its vectors cached in `folder`, and write the negatives and its largest memory there."""
    from datasets import Dataset
    from sentence_transformers import CrossEncoder, SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    model = SentenceTransformer(params["retrieve_dense"]["model"]["path"], device="cpu", local_files_only=True)
    model.max_seq_length = DOC_TOKENS
    longest = DOC_TOKENS + QUERY_TOKENS
    cross = CrossEncoder(params["rerank"]["model"]["path"], device="cpu", max_length=longest, local_files_only=True)
    texts = Texts(**io.read_json(folder / PEER_TEXTS))
    mined = mine_hard_negatives(
        Dataset.from_dict({"query": texts.queries, "positive": texts.positives}),
        model,
        corpus=texts.docs,
        cross_encoder=cross,
        relative_margin=margin,
        num_negatives=1,
        batch_size=BATCH_SIZE,
        use_faiss=True,
        cache_folder=str(folder / "peer"),
        verbose=False,
    )
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    io.write_json(
        folder / "peer.json",
        {"peak_memory_mib": memory, "negatives": list(zip(mined["query"], mined["negative"], strict=True))},
    )


def cut_texts(texts: Texts, cross: Path) -> tuple[Texts, dict[str, str]]:
    """Return the texts as our cross-encoder reads them, and of each document the whole, the first that begins so."""
    model = cross_encoder.load_cross_encoder(cross, DOC_TOKENS + QUERY_TOKENS)
    reader = cross_encoder.PairReader(model.tokenizer, query_tokens=QUERY_TOKENS, doc_tokens=DOC_TOKENS)
    queries = [query for query, _ in reader.cut([(text, "") for text in texts.queries])]
    docs = [doc for _, doc in reader.cut([("", text) for text in texts.docs])]
    cut = dict(zip(texts.docs, docs, strict=True))
    whole = dict(zip(reversed(docs), reversed(texts.docs), strict=True))
    return Texts(queries, [cut[doc] for doc in texts.positives], list(dict.fromkeys(docs))), whole


def our_negatives(folder: Path) -> list[tuple[str, str]]:
    """Return (query, negative) texts of our groups."""
    groups = pl.read_parquet(folder / "data/groups.parquet").explode("negative_ids")
    docs, queries = pl.read_parquet(folder / "data/corpus.parquet"), pl.read_parquet(folder / "data/queries.parquet")
    joined = groups.join(docs.rename({"text": "doc"}), left_on="negative_ids", right_on="doc_id")
    joined = joined.join(queries, on="query_id")
    return list(zip(joined["text"], joined["doc"], strict=True))


def count_wrong(negatives: Sequence[Sequence[str]], texts: Texts) -> int:
    """Return how many negatives are their query's positive, or equal it but for case, punctuation and spacing."""
    positives = dict(zip(texts.queries, map(normalise, texts.positives), strict=True))
    return sum(normalise(doc) == positives[query] for query, doc in negatives)


def compare(folder: Path, texts: Texts, dense: Path, cross: Path, dtype: Dtype) -> dict[str, Row]:
    """Run both sides twice in `folder` and return the results."""
    write_project(folder, texts, dense, cross, dtype)
    cut, whole = cut_texts(texts, cross)
    io.write_json(folder / PEER_TEXTS, cut._asdict())
    first = run_ours(folder, ("retrieve_bm25", "retrieve_dense", "rerank", "label", "filter"))
    peer_first = run_peer(folder, MARGINS[0])
    mined = [(query, whole[doc]) for query, doc in io.read_json(folder / "peer.json")["negatives"]]
    wrong = count_wrong(our_negatives(folder), texts), count_wrong(mined, texts._replace(queries=cut.queries))
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    params["filter"]["margin"] = MARGINS[1]
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    again, peer_again = run_ours(folder, ("filter",)), run_peer(folder, MARGINS[1])
    return {
        "seconds, first time": row(first.seconds, peer_first.seconds, 1.5),
        "seconds, another margin": row(again.seconds, peer_again.seconds, 20.0),
        "peak MiB": row(first.memory_mib, peer_first.memory_mib, 2.0),
        "negatives that are a positive or its duplicate": Row(wrong[0], wrong[1], float(wrong[0] == 0), 1.0),
        "queries with a negative": counted(folder, texts),
    }


def row(ours: float, peer: float, target: float) -> Row:
    """Return a result of which less is better."""
    return Row(ours, peer, peer / ours, target)


def counted(folder: Path, texts: Texts) -> Row:
    """Return which share of the queries each side has a negative for; nothing to reach."""
    ours, peer = our_negatives(folder), io.read_json(folder / "peer.json")["negatives"]
    shares = [len({query for query, _ in found}) / len(texts.queries) for found in (ours, peer)]
    return Row(shares[0], shares[1], shares[0] / max(shares[1], 1e-9), 0.0)


def table(rows: Mapping[str, Row]) -> str:
    """Return the results as Markdown."""
    lines = ["", "| | ours | peer | times better | to reach |", "|---|---|---|---|---|"]
    for name, (ours, peer, ratio, target) in rows.items():
        lines.append(f"| {name} | {ours:.2f} | {peer:.2f} | {ratio:.2f} | {target:g} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Compare, and print a table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=5_000)
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto", help="as in params.yaml")
    parser.add_argument("--peer", type=float, metavar="MARGIN", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer is not None:
        mine_as_peer(Path.cwd(), arguments.peer)
        return
    dense = fetch_model(DenseParams.load().model)
    with tempfile.TemporaryDirectory(dir="runs") as name:
        folder = Path(name)
        cross = make_cross_encoder(dense, folder / "cross")
        rows = compare(folder, read_texts(arguments.docs, arguments.queries), dense, cross, arguments.dtype)
        shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(table(rows) + side_by_side.report(rows) + "\n")


if __name__ == "__main__":
    main()
