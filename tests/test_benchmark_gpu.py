"""The GPU benchmark at a tiny size: both sides compute the same vectors, and its figures count what was computed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anna.modeling.encoder import Encoder
from anna.modeling.packing import Text, pack
from benchmarks.padded import PaddedEncoder
from benchmarks.random_model import SIZES, TASK, Words, make_batch, new_encoder
from benchmarks.side_by_side import operations

REPO = Path(__file__).parents[1]
TINY = SIZES["tiny"]


@pytest.mark.parametrize("num_examples", [0, 5])
def test_both_sides_give_the_same_vectors(num_examples: int) -> None:
    texts, found = Words(TINY.shape.vocabulary).texts(9, TINY.doc_tokens), []
    for kind in (Encoder, PaddedEncoder):
        encoder = new_encoder(TINY, kind).eval()
        prefix = encoder.config.prefix(TASK, num_examples)
        found.append(encoder.encode(texts, prefix=prefix, max_tokens=31, tokens_per_batch=100))
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


def test_needed_operations_are_those_of_the_linear_layers() -> None:
    encoder, counted = new_encoder(TINY, Encoder), 0

    def count(module: torch.nn.Linear, args: tuple[torch.Tensor], output: Any) -> None:
        nonlocal counted
        counted += 2 * module.in_features * module.out_features * args[0].shape[1]

    linear = [module for module in encoder.backbone.modules() if isinstance(module, torch.nn.Linear)]
    for module in linear:
        module.register_forward_hook(count)
    packing = pack([Text([3] * length) for length in (5, 9)])
    with torch.no_grad():
        encoder._embed(packing)
    of_last_tokens = sum(2 * m.in_features * m.out_features * 2 for m in linear[-7:])  # 2 texts
    assert [operations(TINY.shape, 14, passes) for passes in (1, 3)] == [n * (counted - of_last_tokens) for n in (1, 3)]


def test_a_batch_shows_the_encoders_examples() -> None:
    encoder = new_encoder(TINY, Encoder)
    batch, texts = make_batch(encoder, TINY, 5)
    assert [len(group.doc_ids) for group in batch.groups] == [TINY.documents] * TINY.queries
    shown = [(texts.queries[group.query_id], texts.docs[group.doc_ids[0]]) for group in batch.examples]
    assert shown == [(example.query, example.response) for example in encoder.config.task(TASK).examples]
    words = [len(text.split()) for text in texts.docs.values()]
    assert min(words) < 8
    assert max(words) > 20


@pytest.mark.slow
def test_the_benchmark_runs_and_ends_with_json() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--size", "tiny", "--zero", "3", "--examples", "5"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads(done.stdout.splitlines()[-1])
    titles = ["encode, 5 examples", "train, ZeRO 3, 5 examples"]
    assert list(rows) == [name for title in titles for name in (title, f"{title}: useful share of the matrix rate")]
    assert all(set(row) == {"ours", "peer", "ratio", "target"} for row in rows.values())
    cells = [line.split("|") for line in done.stdout.splitlines() if " | anna | " in line or " | padded | " in line]
    computed, useful = ([int(line[place].replace(",", "")) for line in cells] for place in (6, 7))
    assert (computed[0], computed[2]) == (useful[0], useful[2])
    assert min(computed[1] / useful[1], computed[3] / useful[3]) > 2


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_to_the_same_losses_and_is_exported(tmp_path: Path) -> None:
    sizes = ["--size", "tiny", "--zero", "1", "--steps", "30", "--folder", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.gpu_train", *sizes]
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["ZeRO 1"]["redone"] >= 2
    assert found["ZeRO 1"]["difference"] == 0
    assert found["export"]["smallest_cosine"] > 0.9999
    assert not list(tmp_path.iterdir())
