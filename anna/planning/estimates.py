"""One estimate per stage: tokens, operations, memory, disk and time."""

from anna.footprint import whole_weights
from anna.planning import scoring, tables
from anna.planning.case import Case, Estimate
from anna.planning.hardware import HOST_BANDWIDTH
from anna.planning.memory import LIBRARIES, host_memory, needed_memory

START = {"train": 14.0, "export": 6.0}
"""Seconds of imports, loading and saving (default's run on two CPU cores)."""


def estimate(case: Case) -> list[Estimate]:
    """Return the estimates of all stages, in the order of the pipeline."""
    return [
        tables.ingest(case),
        tables.bm25(case),
        scoring.dense(case),
        scoring.rerank(case),
        tables.labels("label", case),
        tables.labels("filter", case),
        train(case),
        _export(case),
        scoring.evaluate(case),
        tables.report(case),
    ]


def train(case: Case) -> Estimate:
    """Return the estimate of training; on a CPU the memory is that of all ranks together."""
    params, hardware, done, own = case.settings.train, case.hardware, case.work, case.setup
    devices = case.ranks if hardware.is_gpu else 1
    reading = host_memory(case.models.checkpoint, own._replace(ranks=1)) / HOST_BANDWIDTH if hardware.is_gpu else 0.0
    seconds = START["train"] + reading + done.operations / (hardware.rate * devices)
    kept = own.trained * own.weight_bytes if params.method == "lora" else whole_weights(own)
    state = own.trained * (12 + own.weight_bytes)
    disk = kept + (2 * state if params.checkpoint_steps else 0) + 2 * own.trained * own.weight_bytes
    note = f"{done.steps:,} steps"
    if params.max_micro_step_tokens:
        note += f", {done.cut_share:.0%} of tokens embedded twice"
    return Estimate("train", done.tokens, done.operations, needed_memory(own), disk, seconds, note)


def _export(case: Case) -> Estimate:
    size = 4.0 * case.models.student.parameters
    seconds = START["export"] + 4 * size / HOST_BANDWIDTH
    memory = LIBRARIES["export"] + 2 * size
    return Estimate("export", 0, 0, memory, size, seconds, "float32, in the machine's memory")


def downloads(case: Case) -> float:
    """Return the bytes of the three models as they are published: two of a weight of a decoder, four of an encoder."""
    shapes = (case.models.checkpoint, case.models.dense, case.models.reranker)
    return float(sum(shape.parameters * (2 if shape.is_decoder else 4) for shape in shapes))
