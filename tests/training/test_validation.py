"""Which queries are validated, what nDCG says of a ranking, and that ranks share the work."""

import itertools
import logging
import math
import multiprocessing
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytrec_eval
import torch
import torch.distributed as dist
from torch import Tensor

from anna.modeling.encoder import Encoder, Part
from anna.training import validation
from anna.training.batches import Group, Texts
from anna.training.validation import HeldOut, ndcg, sample, score
from tests.training.worker import recipe

POSITIVES = {f"{task}{n}": frozenset({f"{task}-d{n}"}) for task in "abc" for n in range(40)}
DOCS = {f"{task}-{name}": f"document {name}" for task in "abc" for name in (*(f"d{n}" for n in range(41)), "x")}
TEXTS = Texts(
    {name: f"query {name}" for name in POSITIVES}, DOCS, POSITIVES, labels={f"c{n}": str(n % 3) for n in range(40)}
)
GROUPS = [
    Group(f"{task}{n}", task, (f"{task}-d{n}", f"{task}-d{n + 1}"), (0.5, 0.5)) for task in "abc" for n in range(40)
]


def test_ndcg_by_hand() -> None:
    scores = np.array([[0.9, 0.8, 0.7, 0.1]] * 3)
    gains = np.array([[0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 0]])
    graded = (1 / math.log2(4) + 2 / math.log2(5)) / (2 + 1 / math.log2(3))
    assert ndcg(scores, gains) == pytest.approx([1 / math.log2(3), graded, 0])
    assert ndcg(scores, gains, depth=2) == pytest.approx([1 / math.log2(3), 0, 0])


def test_equal_scores_keep_the_order_of_columns() -> None:
    assert ndcg(np.zeros((1, 3)), np.array([[0, 1, 0]])) == pytest.approx([1 / math.log2(3)])


@pytest.mark.parametrize("num_docs", [3, 40])
def test_ndcg_is_that_of_trec_eval(num_docs: int) -> None:
    rng = np.random.default_rng(num_docs)
    scores, gains = rng.normal(size=(50, num_docs)), rng.integers(0, 3, (50, num_docs))
    qrels = {f"q{q}": {f"d{d}": int(gain) for d, gain in enumerate(row)} for q, row in enumerate(gains)}
    run = {f"q{q}": {f"d{d}": float(value) for d, value in enumerate(row)} for q, row in enumerate(scores)}
    expected = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10"}).evaluate(run)
    assert ndcg(scores, gains) == pytest.approx([expected[f"q{q}"]["ndcg_cut_10"] for q in range(50)])


def test_queries_are_drawn_by_hash_from_all_tasks_but_those_of_labels() -> None:
    few, more = sample(GROUPS, TEXTS, 10, ()), sample(GROUPS[::-1], TEXTS, 30, ())
    assert [part.task for part in few] == ["a", "b"]
    chosen, others = ({query for part in parts for query in part.query_ids} for parts in (few, more))
    assert (len(chosen), len(others)) == (10, 30)
    assert chosen < others, "a larger sample holds the smaller one"
    assert sum(len(part.query_ids) for part in sample(GROUPS, TEXTS, 999, ())) == 80
    assert sample(GROUPS, TEXTS, 0, ()) == []


def test_a_query_is_ranked_against_positives_and_hardest_negatives_of_its_task() -> None:
    texts = TEXTS._replace(positives={**TEXTS.positives, "a0": frozenset({"a-d0", "a-x"})})
    assert sample(GROUPS[:1], texts, 5, ()) == [HeldOut("a", ("a0",), ("a-d0", "a-d1", "a-x"))]
    many = [group._replace(doc_ids=tuple(f"{group.task}-{n}" for n in range(9))) for group in GROUPS[:2]]
    assert sample(many, TEXTS, 5, ()) == [HeldOut("a", ("a0", "a1"), (*(f"a-{n}" for n in range(6)), "a-d0", "a-d1"))]


def test_a_query_that_is_trained_on_as_its_positives_positive_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    asked = {"t0": "Document d0!", "t1": "document d1", "t2": "query a2"}  # a0's positive, a1's, and a2 itself
    answered = {"t0-d": "query  A0", "t1-d": "query a0", "t2-d": "document d2"}
    texts = TEXTS._replace(queries=TEXTS.queries | asked, docs=TEXTS.docs | answered)
    trained_on = [Group(name, "a", (f"{name}-d", "a-d0"), (0.5, 0.5)) for name in asked]
    assert [part.query_ids for part in sample(GROUPS[:3], texts, 5, trained_on)] == [("a1", "a2")]
    assert "1 of 3 validation queries left out" in caplog.text
    several = [trained_on[0]._replace(doc_ids=("a-x", "t0-d", "a-d0"), num_positives=2), *trained_on[1:]]
    assert [part.query_ids for part in sample(GROUPS[:3], texts, 5, several)] == [("a1", "a2")]


class Engine:
    """Embeds with a function, and remembers in which mode it was put."""

    def __init__(self, encode: Callable[[Sequence[Part]], tuple[Tensor, ...]]) -> None:
        self.encode, self.modes = encode, list[str]()

    def __call__(self, parts: Sequence[Part]) -> tuple[Tensor, ...]:
        return self.encode(parts)

    def eval(self) -> None:
        self.modes.append("eval")

    def train(self) -> None:
        self.modes.append("train")


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("tokens", [1, 4096])
def test_score_is_the_mean_over_all_queries(
    tiny_encoder: Encoder, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "_TOKENS_PER_PASS", tokens)
    words = "what is the capital of France and who wrote this book about rivers mountains music science".split()
    texts = Texts(
        queries={f"q{n}": " ".join(words[n : n + 3]) for n in range(5)},
        docs={**{f"d{n}": " ".join(words[n : n + 1 + n % 4]) for n in range(13)}, "d9": " ".join(words[3:6])},
        positives={f"q{n}": frozenset({f"d{2 * n}"}) for n in range(5)},
    )
    docs = tuple(sorted(texts.docs))
    held_out = [HeldOut("Capitals", ("q0", "q1"), docs[2:]), HeldOut("Similar", ("q2", "q3", "q4"), docs)]
    stub = Engine(tiny_encoder)
    got = score(stub, tiny_encoder, held_out, texts, recipe(1, "lora"))
    expected = []
    for task, query_ids, doc_ids in held_out:
        prefix = tiny_encoder.config.prefix(task)
        limits = {"max_tokens": 16, "tokens_per_batch": 64}
        doc_emb = tiny_encoder.encode(
            [texts.docs[d] for d in doc_ids], prefix=prefix if task == "Similar" else "", **limits
        )
        for query_id in query_ids:
            cosines = doc_emb @ tiny_encoder.encode([texts.queries[query_id]], prefix=prefix, **limits)[0]
            ranked = sorted(zip(-cosines, doc_ids, strict=True))
            ranked = [doc for _, doc in ranked if texts.docs[doc] != texts.queries[query_id]]
            place = [*ranked, *texts.positives[query_id]].index(f"d{2 * int(query_id[1])}")
            expected.append(1 / math.log2(place + 2) if place < 10 else 0)
    assert got == pytest.approx(np.mean(expected))
    assert 0.2 < got < 0.95, "a score that says nothing proves nothing"
    assert stub.modes == ["eval", "train"], "dropout is off while it is scored, and on again afterwards"


LENGTHS = [3, 9, 4, 4, 7, 2, 8]


def vector(row: Any) -> list[float]:
    return [float(sum(row)), float(len(row)), float(row[-1])]


def embed_rows(rank: int, world_size: int, port: int, tokens: int, out: Path) -> None:
    """Embed rows of the lengths above with a function in place of the model, and save vectors and number of passes."""
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size)
    rows = [[n, *range(length)] for n, length in enumerate(LENGTHS)]
    calls = itertools.count()

    def encode(parts: Sequence[Part]) -> tuple[Tensor, ...]:
        next(calls)
        return tuple(torch.tensor([vector(row) for row in part.rows]) for part in parts)

    validation._TOKENS_PER_PASS = tokens
    encoder: Any = SimpleNamespace(num_shared=lambda _: 0)
    torch.save((validation._embed(Engine(encode), encoder, rows), next(calls)), out / f"{rank}.pt")


@pytest.mark.parametrize("tokens", [1, 14, 999])
def test_ranks_share_the_passes_evenly_and_have_all_vectors(tokens: int, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = multiprocessing.get_context("forkserver")
    processes = [server.Process(target=embed_rows, args=(rank, 2, port, tokens, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    (first, calls), (second, other_calls) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert calls == other_calls
    expected = torch.tensor([vector([n, *range(length)]) for n, length in enumerate(LENGTHS)])
    assert torch.equal(first, expected)
    assert torch.equal(second, expected)
