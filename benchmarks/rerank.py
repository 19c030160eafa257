"""Scoring pairs, ours against `CrossEncoder.predict` and against padded query likelihood, same model and pairs.

Pairs are what the default would rerank: the best of both runs for some queries of every task. The cross-encoder is the
dense model with a head of random weights (speed does not depend on weights), the causal model that of `rerank.model`.
Ours cuts queries and passages to their limits as the stage does; the peer gets them cut, outside its clock.
`CrossEncoder.predict` runs at four batch sizes, in float32 as it comes and, where ours does not compute in float32, in
ours, too; the best counts. Both forms of query likelihood compute in the same format.

Query likelihood gains by what pairs share, and few queries share few passages: `--queries 200` is nearer to reranking
all of them.

Usage: python -m benchmarks.rerank [--queries 8] [--depth 8] [--rounds 3] [--dtype auto]
    [--kinds cross_encoder query_likelihood]   (after `make repro`, whose data it reads)
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from anna import io, schemas
from anna.allocation import keep_freed_memory
from anna.modeling.batching import token_batches
from anna.modeling.checkpoint import load_causal_lm
from anna.modeling.hardware import compute_dtype
from anna.origins import fetch_model
from anna.teachers import cross_encoder, likelihood_batches, query_likelihood, shortlist
from anna.teachers.blocks import query_blocks
from anna.teachers.cross_encoder import PairReader
from anna.teachers.dense import DenseParams
from anna.teachers.pairs import texts_of
from anna.teachers.reranker import RerankParams
from benchmarks import side_by_side
from benchmarks.side_by_side import Figures, Row, Side, Work
from benchmarks.texts import make_cross_encoder
from stages.rerank import CORPUS, QUERIES, SOURCES

Pairs = list[tuple[str, str]]
Act = Callable[[Pairs], NDArray[np.float32]]

LIMITS = {"doc_tokens": 64, "query_tokens": 32}
BUDGET, BATCH_SIZES = 4096, (8, 16, 32, 64)
KINDS = ("cross_encoder", "query_likelihood")

WARM_UP = 8
"""Pairs scored before the clock runs."""


def read_pairs(num_queries: int, depth: int) -> Pairs:
    """Return (query, passage) texts of the default's candidates."""
    corpus, queries = io.read(CORPUS, schemas.CORPUS), io.read(QUERIES, schemas.QUERIES)
    rows = query_blocks(queries, SOURCES)
    pairs = shortlist.choose_candidates(queries, rows, depth=depth, queries_per_task=num_queries)
    return texts_of(pairs, corpus, queries)


def our_cross_encoder(path: Path, pairs: Pairs, scores: Path, dtype: torch.dtype) -> Figures:
    """Score as the stage does: in length-sorted batches of a budget of tokens."""
    keep_freed_memory()
    model = cross_encoder.load_cross_encoder(path, sum(LIMITS.values()), dtype)

    def act(part: Pairs) -> NDArray[np.float32]:
        reader = PairReader(model.tokenizer, **LIMITS)
        found = np.empty(len(part), dtype=np.float32)
        for batch in reader.plan_batches(part, BUDGET):
            found[batch] = cross_encoder.score_batch(model, reader.cut([part[place] for place in batch]))
        return found

    useful = _lengths(model, PairReader(model.tokenizer, **LIMITS).cut(pairs))
    return measure(model[0].auto_model.get_input_embeddings(), act, pairs, scores, useful)


def their_cross_encoder(path: Path, pairs: Pairs, batch_size: int, scores: Path, dtype: torch.dtype) -> Figures:
    """Score pairs that are cut already with the library's own method, weights in `dtype`."""
    model = cross_encoder.load_cross_encoder(path, sum(LIMITS.values())).to(dtype)
    cut = PairReader(model.tokenizer, **LIMITS).cut(pairs)

    def act(part: Pairs) -> NDArray[np.float32]:
        none = torch.nn.Identity()
        return np.asarray(model.predict(part, batch_size=batch_size, activation_fn=none, show_progress_bar=False))

    return measure(model[0].auto_model.get_input_embeddings(), act, cut, scores, _lengths(model, cut))


def our_likelihood(path: Path, pairs: Pairs, scores: Path, dtype: torch.dtype) -> Figures:
    """Score on packed rows, each passage once."""
    keep_freed_memory()
    model, tokenizer = load_causal_lm(path)
    model = model.to(dtype=dtype)

    def act(part: Pairs) -> NDArray[np.float32]:
        found = np.empty(len(part), dtype=np.float32)
        for batch in likelihood_batches.plan_batches(tokenizer, part, **LIMITS, tokens_per_batch=BUDGET):
            some = [part[place] for place in batch]
            found[batch] = query_likelihood.score_batch(model, tokenizer, some, **LIMITS)
        return found

    rows = [_tokens(tokenizer, *pair) for pair in pairs]
    once = {pair[1]: len(prefix) for pair, (prefix, _) in zip(pairs, rows, strict=True)}
    useful = sum(once.values()) + sum(len(query) for _, query in rows)
    return measure(model.get_input_embeddings(), act, pairs, scores, useful)


def padded_likelihood(path: Path, pairs: Pairs, scores: Path, dtype: torch.dtype) -> Figures:
    """Score one pair a row, padded to the longest of its batch: as it is done without packing."""
    model, tokenizer = load_causal_lm(path)
    model = model.to(dtype=dtype)

    def act(part: Pairs) -> NDArray[np.float32]:
        rows = [_tokens(tokenizer, *pair) for pair in part]
        found = np.empty(len(part), dtype=np.float32)
        for batch in token_batches([len(prefix) + len(query) for prefix, query in rows], BUDGET):
            found[batch] = padded_scores(model, [rows[place] for place in batch])
        return found

    rows = [_tokens(tokenizer, *pair) for pair in pairs]
    return measure(model.get_input_embeddings(), act, pairs, scores, sum(len(p) + len(q) for p, q in rows))


@torch.inference_mode()
def padded_scores(model: Any, rows: Sequence[tuple[list[int], list[int]]]) -> NDArray[np.float32]:
    """Return the mean log probability of each query given its prefix, both as tokens."""
    ids_BL = pad_sequence([torch.tensor(prefix + query) for prefix, query in rows], batch_first=True)
    lengths_B = torch.tensor([len(prefix) + len(query) for prefix, query in rows])
    mask_BL = (torch.arange(ids_BL.shape[1]) < lengths_B[:, None]).long()
    hidden_BLD = model.base_model(input_ids=ids_BL, attention_mask=mask_BL, use_cache=False).last_hidden_state
    found = []
    for row, (prefix, query) in enumerate(rows):
        before = slice(len(prefix) - 1, len(prefix) + len(query) - 1)
        logs = model.get_output_embeddings()(hidden_BLD[row, before]).float().log_softmax(dim=1)
        found.append(float(logs.gather(1, torch.tensor(query)[:, None]).double().mean()))
    return np.array(found, dtype=np.float32)


def _tokens(tokenizer: Any, query: str, passage: str) -> tuple[list[int], list[int]]:
    """Return what comes before the query, and the query; the same tokens that ours has."""
    (part,) = query_likelihood._shared(tokenizer, [(query, passage)], *LIMITS.values())
    return part.passage, part.queries[0]


def _lengths(model: Any, pairs: Pairs) -> int:
    rows = model.tokenizer(*map(list, zip(*pairs, strict=True)), truncation=True, max_length=sum(LIMITS.values()))
    return sum(map(len, rows["input_ids"]))


def measure(table: torch.nn.Module, act: Act, pairs: Pairs, scores: Path, useful: int) -> Figures:
    """Run `act` on the pairs, save what it returns, and return what it took."""
    work = Work()
    act(pairs[:WARM_UP])
    work.count(table)
    found: list[NDArray[np.float32]] = []
    work.run(lambda: found.append(act(pairs)))
    np.save(scores, found[0])
    return work.figures(useful)


def compare(sides: Mapping[str, tuple[Side, Sequence[Any]]], files: Sequence[Path], rounds: int) -> dict[str, Figures]:
    """Run the sides, print their table and how far ours and the peer's scores are apart."""
    results = side_by_side.compare(sides, rounds)
    ours, peer = (np.load(file) for file in files)
    sys.stdout.write(side_by_side.table(", ".join(sides), results))
    sys.stdout.write(f"\n\nlargest difference of a score: {np.abs(ours - peer).max():.2g}, of {len(ours)} pairs\n")
    return results


def faster(results: Mapping[str, Figures], num_pairs: int, target: float) -> Row:
    """Return pairs per second of ours, the first side, and of the best other one."""
    ours, *peers = (num_pairs / figures.seconds for figures in results.values())
    return Row(ours, max(peers), ours / max(peers), target)


def main() -> None:
    """Run the comparisons and print tables and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=8, help="of each task")
    parser.add_argument("--depth", type=int, default=8, help="candidates of each query")
    parser.add_argument("--rounds", type=int, default=side_by_side.ROUNDS)
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto", help="as in params.yaml")
    parser.add_argument("--kinds", choices=KINDS, nargs="+", default=KINDS, help="as in params.yaml (default: both)")
    arguments = parser.parse_args()
    pairs, dtype = read_pairs(arguments.queries, arguments.depth), compute_dtype(arguments.dtype)
    rows: dict[str, Row] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "cross_encoder" in arguments.kinds:
            model = make_cross_encoder(fetch_model(DenseParams.load().model), folder / "cross")
            rows |= by_cross_encoder(pairs, model, dtype, folder, arguments.rounds)
        if "query_likelihood" in arguments.kinds:
            model = fetch_model(RerankParams.load().model)
            rows |= by_query_likelihood(pairs, model, dtype, folder, arguments.rounds)
    sys.stdout.write(side_by_side.report(rows) + "\n")


def by_cross_encoder(pairs: Pairs, model: Path, dtype: torch.dtype, folder: Path, rounds: int) -> dict[str, Row]:
    """Return the result of the comparison with a cross-encoder; `folder` is for scores."""
    files = folder / "ours.npy", folder / "peer.npy"
    sides: dict[str, tuple[Side, Sequence[Any]]] = {
        "cross-encoder": (our_cross_encoder, (model, pairs, files[0], dtype))
    }
    for theirs in dict.fromkeys([dtype, torch.float32]):
        for size in BATCH_SIZES:
            title = f"CrossEncoder.predict, {str(theirs).removeprefix('torch.')}, batch {size}"
            sides[title] = (their_cross_encoder, (model, pairs, size, files[1], theirs))
    return {"cross-encoder, pairs/s": faster(compare(sides, files, rounds), len(pairs), 1.2)}


def by_query_likelihood(pairs: Pairs, model: Path, dtype: torch.dtype, folder: Path, rounds: int) -> dict[str, Row]:
    """Return the result of the comparison with a causal model; `folder` is for scores."""
    files = folder / "ours.npy", folder / "peer.npy"
    sides: dict[str, tuple[Side, Sequence[Any]]] = {
        "query likelihood": (our_likelihood, (model, pairs, files[0], dtype)),
        "padded": (padded_likelihood, (model, pairs, files[1], dtype)),
    }
    return {"query likelihood, pairs/s": faster(compare(sides, files, rounds), len(pairs), 2.0)}


if __name__ == "__main__":
    main()
