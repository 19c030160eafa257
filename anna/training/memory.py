"""Refuse a run that no device could hold, before anything is loaded."""

import torch

from anna import machine
from anna.errors import InputError
from anna.footprint import GIB, Setup, floor, recomputed_layers, remedies
from anna.known_shapes import known_shape
from anna.modeling.hardware import compute_dtype
from anna.modeling.student import StudentParams
from anna.origins import describe
from anna.ranks import ranks_here
from anna.training.recipe import TrainParams


def check_memory(student: StudentParams, recipe: TrainParams, ranks: int, memory: float | None = None) -> None:
    """Refuse what cannot fit for certain: weights, gradients and optimizer alone are more than there is.

    What may or may not fit is left to try; `anna plan` estimates it.

    Args:
        student: The model; whose shape is not known, fits.
        recipe: How it is trained.
        ranks: Processes of all machines.
        memory: Bytes of each device; None: as they are here.

    Raises:
        InputError: With what is needed, what there is, and what to change.
    """
    shape = known_shape(student.model)
    if shape is None:
        return
    shape = shape.cut(student.layers)
    is_gpu = torch.cuda.is_available()
    begins_with_last = student.last_layer == "weighted_mean" or recipe.last_layer_first is not None
    setup = Setup(
        shape=shape,
        ranks=ranks,
        tokens=0,
        is_gpu=is_gpu,
        zero_stage=recipe.zero_stage,
        method=recipe.method,
        lora_rank=recipe.lora.rank,
        freeze_token_table=recipe.freeze_token_table,
        recomputed=recomputed_layers(recipe.gradient_checkpointing, shape.layers),
        is_quantized=recipe.quantize is not None,
        weight_bytes=2 if is_gpu and compute_dtype(recipe.dtype) == torch.bfloat16 else 4,
        start=4.0 * shape.parameters * begins_with_last,
    )
    room = memory or available_memory(ranks)
    if setup.start > room:
        raise InputError(
            "student.last_layer or train.last_layer_first needs the whole model in float32 in every process: "
            f"{setup.start / GIB:.1f} GiB of {room / GIB:.1f}; set student.last_layer to pretrained and "
            "train.last_layer_first to null"
        )
    if floor(setup) <= room:
        return
    found = remedies(setup, room, floor)
    remedy = f"set {', or '.join(found)}" if found else "use more GPUs, or a smaller student.model"
    needs = f"{floor(setup) / GIB:.1f} GiB of {room / GIB:.1f} GiB per {'GPU' if is_gpu else 'process'}"
    raise InputError(
        f"student.model {describe(student.model)} with train.method {recipe.method} at train.zero_stage "
        f"{recipe.zero_stage} on {ranks} process(es) needs at least {needs}, before any text is read: {remedy}; see "
        "`anna plan`"
    )


def available_memory(ranks: int) -> float:
    """Return the bytes of this process's GPU, or its share of the machine's memory."""
    if torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    return machine.memory() / ranks_here(ranks)
