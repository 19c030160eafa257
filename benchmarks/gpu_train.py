"""The stages `train` and `export` of a preset at its model's real shape: killed, resumed, encoded with.

A checkpoint of random weights and tables of random words are written to a folder; the preset's own params (of
presets/mistral-7b.yaml, the share of one of its 8 GPUs) run there as stages do. Training is killed by SIGKILL between
two checkpoints and started again. The table shows time and memory, next to what `anna plan` says of the same work.
`--size`: mistral-7b and qwen3-0.6b for their presets, smollm2-135m for params.yaml; tiny runs on a CPU, too.

Usage: python -m benchmarks.gpu_train [--size mistral-7b] [--zero 1 3] [--steps 10] [--recomputed 0] [--no-export]
"""

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
import yaml

from anna import io, schemas
from anna.footprint import GIB
from anna.modeling.encoder import Encoder
from anna.modeling.hardware import pick_device
from anna.modeling.student import StudentParams
from anna.planning import memory, training, work
from anna.planning.hardware import this_machine
from anna.shapes import Shape
from anna.training.recipe import TrainParams
from benchmarks.random_model import REPO, SIZES, Size, Words, new_causal, new_tokenizer

BASE = Path("models/base")
POLL = 0.1
"""Seconds between two looks at a running stage."""


class Trained(NamedTuple):
    """One run of `train`, killed once."""

    start_seconds: float
    """From starting the process to the first step's end, kernels compiled."""
    resume_seconds: float
    """From starting it again to the end of the first new step."""
    step_seconds: float
    """Median of the steps after the first."""
    tokens: float
    """Of a step, mean."""
    largest: int
    """Tokens of the largest batch."""
    memory: float
    """Peak bytes of the GPU, or of the process."""
    redone: int
    """Steps taken before the kill and again after it."""
    difference: float
    """Largest between the two losses of such a step; 0: equal to the last digit."""


def write_project(size: Size, steps: int) -> None:
    """Write checkpoint and tables to the current folder."""
    new_causal(size).save_pretrained(BASE)
    torch.cuda.empty_cache()  # the stages need it
    new_tokenizer(size).save_pretrained(BASE)
    for name, (schema, rows) in tables(size, steps * size.queries).items():
        io.write(Path(f"data/{name}.parquet"), pa.Table.from_pylist(rows, schema), schema)


def tables(size: Size, num_queries: int) -> dict[str, tuple[pa.Schema, list[dict[str, Any]]]]:
    """Return schema and rows of all that `train` and `export` read; the first of a query's documents is positive."""
    task, words, per_query = size.task, Words(size.shape.vocabulary), size.documents
    asked, texts = words.texts(num_queries, size.query_tokens), words.texts(num_queries * per_query, size.doc_tokens)
    queries, docs = (
        [f"{task}:{kind}:{n:06d}" for n in range(len(part))] for kind, part in (("q", asked), ("d", texts))
    )
    groups = [docs[n * per_query : (n + 1) * per_query] for n in range(num_queries)]
    same = {"task": task, "kind": "retrieval", "split": "train"}
    shares = [1 / per_query] * per_query
    pairs = list(zip(queries, groups, strict=True))
    found = [
        {"query_id": query, "positive_ids": group[:1], "negative_ids": group[1:], "soft_labels": shares}
        for query, group in pairs
    ]
    drawn = np.random.default_rng(0).normal(size=(len(queries) + len(docs), 8)).astype(np.float32)
    vectors = [{"id": i, "vector": vector} for i, vector in zip(queries + docs, drawn, strict=True)]
    shown = [{"task": task, "position": n, "query": asked[n], "response": texts[n]} for n in range(5)]
    return {
        "corpus": (schemas.CORPUS, [{"doc_id": i, "task": task, "text": t} for i, t in zip(docs, texts, strict=True)]),
        "queries": (schemas.QUERIES, [{"query_id": i, "text": t, **same} for i, t in zip(queries, asked, strict=True)]),
        "qrels": (schemas.QRELS, [{"query_id": i, "doc_id": group[0], "relevance": 1} for i, group in pairs]),
        "groups": (schemas.GROUPS, found),
        "drops": (schemas.DROPS, []),
        "dense_vectors": (schemas.VECTORS, vectors),
        "eval/examples": (schemas.EXAMPLES, shown),
    }


def write_params(size: Size, zero_stage: int, chosen: argparse.Namespace) -> None:
    """Write the size's params for one GPU's share of a batch, in as few steps."""
    params = yaml.safe_load(size.params.read_text(encoding="utf-8"))
    params["student"]["model"] = {"kind": "files", "path": str(BASE)}
    params["train"] |= {
        "zero_stage": zero_stage,
        "processes": 1,
        "batch_queries": size.queries,
        "max_steps": chosen.steps,
        "checkpoint_steps": chosen.steps // 2,
        "validation_queries": 0,
        "keep": "last",
    }
    if chosen.micro_step_tokens:
        params["train"]["max_micro_step_tokens"] = chosen.micro_step_tokens
    if chosen.recomputed is not None:
        params["train"]["gradient_checkpointing"] = chosen.recomputed or False
    params["export"]["check_texts"] = 2
    io.write_text(Path("params.yaml"), yaml.safe_dump(params))


def train(steps: int) -> Trained:
    """Run `train`, kill it after the checkpoint and a step more, run it to its end, and return what that took."""
    for of_the_run_before in ("dvclive", "runs/checkpoints"):
        shutil.rmtree(of_the_run_before, ignore_errors=True)
    started = time.perf_counter()
    process = start("train")
    first = wait_for(process, 1) - started
    wait_for(process, steps // 2 + 2)
    process.kill()
    process.wait()
    if not list(Path("runs/checkpoints").glob("*/latest.json")):
        raise SystemExit("killed, but no checkpoint is there")
    before = live("loss")
    shutil.rmtree("dvclive")
    started = time.perf_counter()
    process = start("train")
    resumed = wait_for(process, steps // 2 + 1) - started
    if process.wait():
        raise SystemExit("the resumed run failed; its message is above")
    with Path("metrics/training.csv").open(encoding="utf-8") as file:
        tokens = [int(row["tokens"]) for row in csv.DictReader(file)]
    speeds = live("tokens_per_second")
    seconds = [count / speed for count, speed in zip(tokens, speeds, strict=True)][1:]
    name = "peak_gpu_memory_gib" if torch.cuda.is_available() else "peak_memory_gib"
    redone = len(before) - steps // 2
    differences = [abs(one - other) for one, other in zip(before, live("loss"), strict=False)]
    return Trained(
        start_seconds=first,
        resume_seconds=resumed,
        step_seconds=statistics.median(seconds),
        tokens=statistics.mean(tokens),
        largest=max(tokens),
        memory=max(live(name)) * GIB,
        redone=redone,
        difference=max(differences),
    )


def start(stage: str) -> "subprocess.Popen[bytes]":
    """Start a stage."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPO), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen([sys.executable, "-m", f"stages.{stage}"], env=environment)


def wait_for(process: "subprocess.Popen[bytes]", steps: int) -> float:
    """Wait until a training run has written so many steps, and return the time."""
    while len(live("loss")) < steps:
        if process.poll() is not None:
            raise SystemExit(f"train ended with {process.returncode} before step {steps}")
        time.sleep(POLL)
    return time.perf_counter()


def live(name: str) -> list[float]:
    """Return a metric of all steps so far, as DVCLive wrote it."""
    path = Path(f"dvclive/plots/metrics/{name}.tsv")
    if not path.is_file():
        return []
    return [float(line.split("\t")[-1]) for line in path.read_text(encoding="utf-8").splitlines()[1:]]


def planned(size: Size, done: Trained) -> tuple[float, float]:
    """Return the seconds of a step and the peak memory that `anna plan`'s arithmetic gives for this machine."""
    train, hardware = TrainParams.load(), this_machine()
    shape = Shape.of(io.read_json(BASE / "config.json")).cut(StudentParams.load().layers)
    most = train.max_micro_step_tokens or done.largest
    own = training.setup(train, shape, hardware, 1, min(done.largest, most))
    texts = size.queries * (1 + size.documents)
    operations = work.training(
        shape,
        statistics.mean(size.doc_tokens) / 2,
        texts / done.tokens,
        method=train.method,
        recomputed=own.recomputed / shape.layers,
        twice=float(done.tokens > most),
    )
    return operations * done.tokens / hardware.rate, memory.needed_memory(own)


def export() -> tuple[float, float]:
    """Run `export` and return its seconds and the smallest cosine with the training encoder's vectors."""
    started = time.perf_counter()
    if start("export").wait():
        raise SystemExit("export failed; its message is above")
    return time.perf_counter() - started, io.read_json(Path("metrics/export.json"))["smallest_cosine"]


def encode(size: Size) -> tuple[float, float]:
    """Encode with the exported model as `evaluate` does, and return seconds and tokens per second."""
    encoder = Encoder.load(Path("models/sentence-transformer"), torch.bfloat16).to(pick_device())
    texts = Words(size.shape.vocabulary).texts(size.encoded[0], size.doc_tokens)
    most = size.doc_tokens[1] + 2

    def act() -> float:
        started = time.perf_counter()
        encoder.encode(texts, max_tokens=most, tokens_per_batch=size.tokens_per_batch)
        return time.perf_counter() - started

    act()
    seconds = act()
    return seconds, sum(map(len, encoder.tokenize(texts, max_tokens=most))) / seconds


def main(argv: Sequence[str] | None = None) -> None:
    """Do everything; print the table and a line of JSON."""
    chosen = parse(argv)
    size = SIZES[chosen.size].cut(chosen.layers)
    rows, results = [], dict[str, Any]()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        os.chdir(folder)
        write_project(size, chosen.steps)
        for stage in chosen.zero:
            write_params(size, stage, chosen)
            done = train(chosen.steps)
            seconds, peak = planned(size, done)
            same = f"losses of {done.redone} steps taken twice differ by {done.difference:g}"
            rows.append(f"ZeRO {stage}: start {done.start_seconds:.0f} s, resumed {done.resume_seconds:.0f} s, {same}")
            rows.append(f"  a step: {done.step_seconds:.2f} s, planned {seconds:.2f} s; {done.tokens:,.0f} tokens")
            rows.append(f"  peak: {done.memory / GIB:.1f} GiB, planned {peak / GIB:.1f} GiB")
            results[f"ZeRO {stage}"] = {**done._asdict(), "planned_seconds": seconds, "planned_memory": peak}
            sys.stderr.write("\n".join(rows[-3:]) + "\n")
        if not chosen.no_export:
            seconds, cosine = export()
            sys.stderr.write(f"export: {seconds:.0f} s, smallest cosine {cosine}\n")
            encoding, speed = encode(size)
            rows.append(f"export: {seconds:.0f} s, smallest cosine {cosine}; encoding {speed:,.0f} tokens/s")
            results["export"] = {"seconds": seconds, "smallest_cosine": cosine}
            results["encode"] = {"seconds": encoding, "tokens_per_second": speed}
        os.chdir(REPO)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    sys.stdout.write("\n".join([device, *rows]) + "\n\n" + json.dumps(results) + "\n")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's choices."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="mistral-7b")
    parser.add_argument("--layers", type=int, help="other than the size's, where memory is short")
    parser.add_argument("--zero", type=int, nargs="+", default=[1, 3], choices=[0, 1, 2, 3])
    parser.add_argument("--steps", type=int, default=10, help="of each run; a checkpoint is written half way")
    parser.add_argument("--micro-step-tokens", type=int, help="other than the preset's")
    parser.add_argument("--recomputed", type=int, help="layers, other than the preset's; 0: none")
    parser.add_argument("--folder", type=Path, help="where a temporary folder is made: 45 GB at Mistral-7B's size")
    parser.add_argument("--no-export", action="store_true", help="train only")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
