"""Peak memory of a stage: libraries, weights, and what is computed at once."""

from anna.footprint import GPU_BASE, Setup, peak
from anna.planning.hardware import Hardware
from anna.shapes import Shape

MIB = 2**20

LIBRARIES = {
    "ingest": 370 * MIB,
    "tables": 330 * MIB,
    "retrieve_bm25": 280 * MIB,
    "retrieve_dense": 900 * MIB,
    "rerank": 640 * MIB,
    "train": 950 * MIB,
    "export": 780 * MIB,
    "evaluate": 800 * MIB,
    "report": 370 * MIB,
}
"""Resident memory beside weights and what is computed: Python, libraries, tokenizers, tables (default, on a CPU; of
stages with a model 440 to 640 MiB are the imports alone); `tables` is of `label` and `filter`."""


def inference_weights(stage: str, shape: Shape, hardware: Hardware, *, is_wide: bool) -> float:
    """Return the bytes of weights that encode or score.

    In bfloat16 teachers are kept in it; the student is in float32 and has a copy in bfloat16, which autocast makes and
    keeps: 6 bytes each.

    Args:
        stage: What computes.
        shape: Of its model.
        hardware: A CPU is taken to compute in float32.
        is_wide: Whether a GPU computes in float32, for a part of the stage at least.
    """
    narrow = 6 if stage == "evaluate" else 2
    return float(shape.parameters * (narrow if hardware.is_gpu and not is_wide else 4))


def inference_memory(stage: str, shape: Shape, at_once: float, hardware: Hardware, *, is_wide: bool) -> float:
    """Return the peak memory of computing `at_once` tokens without gradients; arguments as for `inference_weights`.

    Weights, and per token what one layer holds at a time.
    """
    number = 2 if hardware.is_gpu and not is_wide else 4
    working = at_once * (16 * shape.hidden + 3 * (shape.ffn + shape.query_dims) * number)
    base = GPU_BASE if hardware.is_gpu else LIBRARIES[stage]
    return base + inference_weights(stage, shape, hardware, is_wide=is_wide) + working


def needed_memory(own: Setup) -> float:
    """Return the peak of a GPU, or of the whole machine.

    There each rank has libraries, and the first two copies of what is trained: of before, and of what is saved.
    """
    if own.is_gpu:
        return max(peak(own), own.start)
    copies = 8 * own.trained
    return max(own.ranks * (LIBRARIES["train"] + peak(own)) + copies, own.ranks * (LIBRARIES["train"] + own.start))


def host_memory(checkpoint: Shape, own: Setup) -> float:
    """Return the machine's memory while training starts: each rank reads the whole checkpoint.

    In float32, but where adapters are trained on a GPU its weights have b bytes at once.
    """
    head = 0 if checkpoint.is_tied else checkpoint.table
    number = own.weight_bytes if own.method == "lora" else 4
    return own.ranks * (number * (checkpoint.parameters + head) + LIBRARIES["train"])
