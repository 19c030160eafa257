"""A plan from a file of params: what each stage will take, before anything runs and without fetching anything."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from anna.errors import InputError
from anna.known_shapes import find_shape
from anna.planning.case import Case, Models
from anna.planning.counts import count
from anna.planning.estimates import estimate
from anna.planning.hardware import GPU_SHARE, GPUS_OF_MACHINE, Hardware, parse, this_machine
from anna.planning.report import describe
from anna.planning.settings import Settings


def plan(
    settings: Settings, params: Path, hardware: str | None, rows: Mapping[str, int], share: float | None = None
) -> str:
    """Return the plan as text.

    Args:
        settings: What is planned for.
        params: The file that says so, for messages.
        hardware: Such as `h200x8`; None: this machine, whose speed is measured.
        rows: Of training tasks, where the user knows better.
        share: Of the peak of `hardware` that models reach; None: `GPU_SHARE`.

    Raises:
        InputError: If the hardware, its share or a task is wrong, or the sizes of a model are not known.
    """
    if hardware is None and share is not None:
        raise InputError(
            f"--share {share:g}: is of the peak of --hardware, and this machine's speed is measured; leave it out, or "
            "name the hardware, e.g. --hardware h200x8"
        )
    device = parse(hardware, GPU_SHARE if share is None else share) if hardware else this_machine()
    case = make_case(settings, params, device, rows)
    free = None if hardware else float(shutil.disk_usage(Path.cwd()).free)
    return describe(case, estimate(case), params.as_posix(), free)


def make_case(settings: Settings, params: Path, hardware: Hardware, rows: Mapping[str, int]) -> Case:
    """Return all that estimates are made from; see `plan`."""
    checkpoint = find_shape(settings.student.model, "student.model")
    models = Models(
        student=checkpoint.cut(settings.student.layers),
        dense=find_shape(settings.retrieve_dense.model, "retrieve_dense.model"),
        reranker=find_shape(settings.rerank.model, "rerank.model"),
        checkpoint=checkpoint,
    )
    return Case(settings, count(settings, params, rows), models, hardware, ranks(settings, hardware))


def ranks(settings: Settings, hardware: Hardware) -> int:
    """Return the processes that train: `train.processes`, at most one per GPU.

    On several machines a launcher starts a process on each GPU.
    """
    processes: int = settings.train.processes
    if not hardware.is_gpu:
        return processes
    return hardware.devices if hardware.devices > GPUS_OF_MACHINE else min(processes, hardware.devices)
