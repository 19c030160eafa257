"""Mistral-7B's real shape on a GPU: tokens per second and share of the matrix rate, training and encoding.

Random weights, LoRA of rank 32 on all linear layers, bfloat16: the recipe of presets/mistral-7b.yaml on the share of
one of its 8 GPUs, 16 queries with 8 documents each. The peer is the padded form of the same model through transformers'
own sdpa attention, in the same engine and with the same bound on a micro-step, above which a batch is embedded twice:
every query with its whole prompt, and padding. Runs on a CPU too, which says nothing of speed: `--size tiny`.

Usage: python -m benchmarks.gpu [--size mistral-7b] [--zero 1 3] [--examples 0 5] [--recomputed 0]
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from anna.modeling.encoder import Encoder
from anna.modeling.fused import can_fuse, fuse
from anna.modeling.student import recompute
from anna.planning.hardware import matrix_rate
from anna.training import engine as engines
from anna.training import step
from anna.training.recipe import TrainParams
from benchmarks import side_by_side
from benchmarks.padded import PaddedEncoder
from benchmarks.random_model import SIZES, TASK, Size, Words, make_batch, new_encoder
from benchmarks.side_by_side import Figures, Row, Work

NUM_STEPS = 3

HEADER = "| | side | tokens/s | useful share | seconds | computed | useful | peak GiB |\n" + "|---" * 8 + "|"


class Job(NamedTuple):
    """What both sides do."""

    size: Size
    zero_stage: int | None
    """None: encode instead of training."""
    num_examples: int
    micro_step_tokens: int | None
    recomputed: int | None = None
    """Layers of ours; None: all, as of the padded form, whose activations would fit nowhere."""

    @property
    def title(self) -> str:
        """What it is called in tables."""
        kind = "encode" if self.zero_stage is None else f"train, ZeRO {self.zero_stage}"
        return f"{kind}, {self.num_examples} examples"


def run(is_ours: bool, job: Job) -> Figures:
    """Do the job in this process and return what it took."""
    encoder = new_encoder(job.size, Encoder if is_ours else PaddedEncoder)
    work = Work()
    work.count(encoder.backbone.embed_tokens)
    return encode(encoder.eval(), job, work) if job.zero_stage is None else train(encoder, job, work)


def encode(encoder: Encoder, job: Job, work: Work) -> Figures:
    """Encode documents bare, or queries with examples."""
    size, is_bare = job.size, not job.num_examples
    lengths = size.doc_tokens if is_bare else size.query_tokens
    texts = Words(size.shape.vocabulary).texts(size.encoded[not is_bare], lengths)
    prefix, max_tokens = "" if is_bare else encoder.config.prefix(TASK, job.num_examples), lengths[1] + 1
    rows = encoder.tokenize(list(dict.fromkeys(texts)), prefix=prefix, max_tokens=max_tokens)

    def act() -> None:
        encoder.encode(texts, prefix=prefix, max_tokens=max_tokens, tokens_per_batch=size.tokens_per_batch)

    return measure(act, work, useful_tokens(rows, encoder.count(prefix)), 1)


def train(encoder: Encoder, job: Job, work: Work) -> Figures:
    """Take optimizer steps."""
    torch.manual_seed(0)
    engines.init_distributed()
    recipe = TrainParams.load(job.size.params).model_copy(
        update={
            "zero_stage": job.zero_stage,
            "max_micro_step_tokens": job.micro_step_tokens,
            "query_tokens": job.size.query_tokens[1] + 1,
            "doc_tokens": job.size.doc_tokens[1] + 1,
        }
    )
    is_ours = not isinstance(encoder, PaddedEncoder)
    if is_ours and can_fuse(is_quantized=False):
        fuse(encoder.backbone, zero_stage=recipe.zero_stage)
    if is_ours and recipe.zero_stage == 3:  # the padded side runs its layers twice in a pass, which this forbids
        engines.gather_layers(encoder.backbone)
    layers = job.size.shape.layers if job.recomputed is None or not is_ours else job.recomputed
    if layers:
        recompute(encoder.backbone, layers)
    lora = recipe.lora
    engines.add_lora(encoder, rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout)
    engine = engines.start_engine(encoder.train(), recipe)
    batch, texts = make_batch(encoder, job.size, job.num_examples)
    doc_ids = [doc for group in batch.groups for doc in group.doc_ids]
    queries, docs = step.tokenize_batch(encoder, batch, batch.groups, doc_ids, texts=texts, recipe=recipe)
    shared = encoder.count(encoder.config.prefix(TASK, job.num_examples))
    useful = useful_tokens(queries.rows, shared) + useful_tokens(docs.rows, 0)
    return measure(lambda: step.take(engine, encoder, batch, texts, recipe), work, useful, NUM_STEPS)


def measure(act: Callable[[], object], work: Work, useful: int, times: int) -> Figures:
    """Act once to warm up (kernels are compiled then) and `times` with the clock running; figures are of one time."""
    is_gpu = torch.cuda.is_available()

    def waited() -> None:
        act()
        if is_gpu:
            torch.cuda.synchronize()

    waited()
    work.computed = 0
    if is_gpu:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(times):
        work.run(waited)
    figures = work.figures(useful)
    memory = torch.cuda.max_memory_allocated() / 2**20 if is_gpu else figures.memory_mib
    return Figures(figures.seconds / times, figures.computed // times, useful, memory)


def useful_tokens(rows: Sequence[Sequence[int]], shared: int) -> int:
    """Return the tokens that have to be computed: each text once, and what all begin with once."""
    return shared + sum(len(row) - shared for row in rows)


def line(job: Job, side: str, figures: Figures, share: float) -> str:
    """Return one line of the table."""
    seconds, computed, useful, memory = figures
    speed = f"{useful / seconds:,.0f} | {share:.1%} | {seconds:.3f}"
    return f"| {job.title} | {side} | {speed} | {computed:,} | {useful:,} | {memory / 1024:.1f} |"


def main(argv: Sequence[str] | None = None) -> None:
    """Run all jobs on both sides; print the table and the line of JSON."""
    chosen = parse(argv)
    size = SIZES[chosen.size].cut(chosen.layers)
    is_gpu = torch.cuda.is_available()
    dtype, device = (torch.bfloat16, torch.cuda.get_device_name()) if is_gpu else (torch.float32, "CPU")
    rate = matrix_rate(dtype, (min(16384, 4 * size.shape.hidden), size.shape.hidden, size.shape.ffn))
    lines, rows = [HEADER], dict[str, Row]()
    for stage in (None, *chosen.zero):
        for examples in chosen.examples:
            job = Job(size, stage, examples, chosen.micro_step_tokens or None, chosen.recomputed)
            sides = {name: (run, (name == "anna", job)) for name in ("anna", "padded")}
            ours, peer = side_by_side.compare(sides, chosen.rounds).values()
            needed = side_by_side.operations(size.shape, ours.useful, passes=1 if stage is None else 2)
            shares = [needed / figures.seconds / rate for figures in (ours, peer)]
            lines += [line(job, *row) for row in zip(sides, (ours, peer), shares, strict=True)]
            rows[job.title] = side_by_side.faster(ours, peer, 1.0)
            share = Row(shares[0], shares[1], shares[0] / shares[1], 0.5)
            rows[f"{job.title}: useful share of the matrix rate"] = share
    sys.stdout.write(f"{device}, {dtype}, matrix products: {rate / 1e12:.2f} TFLOP/s\n\n" + "\n".join(lines) + "\n\n")
    sys.stdout.write(side_by_side.report(rows) + "\n")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's choices."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="mistral-7b")
    parser.add_argument("--layers", type=int, help="other than the size's, where memory is short")
    parser.add_argument("--zero", type=int, nargs="*", default=[1, 3], choices=[0, 1, 2, 3], help="none: encode only")
    parser.add_argument("--examples", type=int, nargs="+", default=[0, 5], choices=range(6))
    parser.add_argument("--micro-step-tokens", type=int, default=32768, help="0: never cut a batch")
    parser.add_argument("--recomputed", type=int, help="layers in training; 0: none; left out: all")
    parser.add_argument("--rounds", type=int, default=1)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
