"""One rank of short training runs on the tiny model, one per ZeRO stage and method. Started by the tests.

Usage: python -m tests.training.worker CHECKPOINT OUT RUN [RUN ...]
Each is STAGE:METHOD:MICRO_STEP_TOKENS, 0 for one pass, and :compiled for middle layers compiled as on a GPU, attention
left out, which has no such backward pass on a CPU.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anna.modeling import fused
from anna.modeling.encoder_config import PromptParams
from anna.training import engine as engines
from anna.training import loop, run
from anna.training.batches import Group, Texts
from anna.training.recipe import TrainParams
from tests.conftest import tiny_student

NUM_GROUPS = 22


def toy_groups() -> list[Group]:
    """Groups of two tasks, with one or two negatives, some documents shared between groups; two have two positives."""
    groups = []
    for number in range(NUM_GROUPS):
        task = "Capitals" if number % 3 else "Similar"
        docs = (f"d{number}", f"d{(number * 7 + 3) % 40}", f"d{(number * 5 + 11) % 40}")[: 2 + number % 2]
        weights: tuple[float, ...] = (0.6, 0.3, 0.1)[: len(docs)]
        several = number in (10, 12)
        if several:
            docs, weights = (f"d{number + 30}", *docs), (0.4, *weights)
        shares = tuple(weight / sum(weights) for weight in weights)
        groups.append(Group(f"q{number:02d}", task, docs, shares, 1 + several))
    return groups


def toy_texts() -> Texts:
    """Texts of mixed lengths; q05 has a second labelled positive that is another query's document."""
    words = "what is the capital of France and who wrote this book about rivers mountains music science".split()
    docs = {f"d{n}": " ".join(words[n % 5 : n % 5 + 2 + n % 9]) + f" {n}" for n in range(60)}
    queries = {f"q{n:02d}": f"{words[n % len(words)]} {n}" for n in range(NUM_GROUPS)}
    random = np.random.default_rng(4)
    vectors = {name: (random.standard_normal(6) / 3).astype(np.float32) for name in [*queries, *docs]}
    return Texts(queries, docs, {"q05": frozenset({"d5", "d7"})}, vectors=vectors)


def recipe(zero_stage: int, method: str, max_tokens: int | None = None) -> TrainParams:
    """A short, warm recipe without dropout."""
    return TrainParams.model_validate(
        {
            "seed": 3,
            "method": method,
            "lora": {"rank": 4, "alpha": 8, "dropout": 0.0},
            "freeze_token_table": False,
            "gradient_checkpointing": False,
            "zero_stage": zero_stage,
            "quantize": None,
            "processes": 1,
            "dtype": "float32",
            "epochs": 1,
            "max_steps": None,
            "batch_queries": 5,
            "chain_negatives": False,
            "max_micro_step_tokens": max_tokens,
            "query_tokens": 16,
            "doc_tokens": 16,
            "max_examples": 2,
            "temperature": 0.1,
            "kd_weight": 1.0,
            "batch_kd_weight": 0.5,
            "batch_teacher_temperature": 0.3,
            "false_negative_margin": 0.1,
            "matryoshka_dims": [],
            "last_layer_first": None,
            "learning_rate": 0.003,
            "warmup_steps": 1,
            "weight_decay": 0.01,
            "max_gradient_norm": 1.0,
            "checkpoint_steps": None,
            "validation_steps": None,
            "validation_queries": 0,
            "keep": "last",
        }
    )


def prompts() -> PromptParams:
    """Prompts of the two toy tasks."""
    tasks = {
        "Capitals": {"instruction": "given a question retrieve", "symmetric": False},
        "Similar": {"instruction": "similar sentences", "symmetric": True},
    }
    return PromptParams.model_validate({"tasks": tasks, "example_tokens": 8, "max_tokens": 128})


def train_tiny(checkpoint: str, chosen: TrainParams, *, is_compiled: bool) -> dict[str, Any]:
    """Train, and return what every test compares."""
    student = tiny_student(Path(checkpoint), layers=3)  # at ZeRO 3 the middle one is gathered whole
    torch.manual_seed(0)
    encoder = run.new_encoder(student, prompts(), {}, chosen)
    for layer in fused.gathered_whole(encoder.backbone) if is_compiled else ():
        for part in (layer.input_layernorm, layer.post_attention_layernorm, layer.mlp):
            fused.fuse_part(part)
    batches = run.plan(toy_groups(), chosen)
    engine = engines.start_engine(encoder, chosen)
    records = loop.train(engine, encoder, batches, toy_texts(), chosen)
    return {"state": engines.weights(encoder.backbone, is_trained=True), "records": records}


def main(checkpoint: str, out: str, *runs: str) -> None:
    """Do every run, and save the results of all from the first rank."""
    torch.set_num_threads(1)
    rank, world_size = engines.init_distributed()
    results: dict[str, Any] = {"world_size": world_size}
    for name in runs:
        zero_stage, method, max_tokens, *how = name.split(":")
        chosen = recipe(int(zero_stage), method, int(max_tokens) or None)
        results[name] = train_tiny(checkpoint, chosen, is_compiled=how == ["compiled"])
    if rank == 0:
        torch.save(results, Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
