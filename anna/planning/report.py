"""A plan as text: one table of stages, one of training's memory by ZeRO stage, and a verdict."""

import textwrap
from collections.abc import Sequence

from anna.footprint import GIB, Setup, activations, floor, remedies, states
from anna.planning import held_out
from anna.planning.case import Case, Estimate
from anna.planning.estimates import downloads
from anna.planning.hardware import GPUS_OF_MACHINE
from anna.planning.known_rows import ASSUMED
from anna.planning.memory import LIBRARIES, host_memory, inference_weights, needed_memory
from anna.planning.scoring import is_wide, longest_text, scored_by, scoring_memory
from anna.planning.tables import read_by_rank
from anna.planning.text import aligned, count, duration, size

ON_GPU = ("retrieve_dense", "rerank", "train", "evaluate")
"""Stages that run on a GPU where there is one; the others are the CPU's."""

MODEL_KEYS = {"retrieve_dense": "retrieve_dense.model", "rerank": "rerank.model", "evaluate": "student.model"}
"""What encodes or scores in a stage; beside its weights the stage's `tokens_per_batch` bounds the memory."""

FREE_SHARE = 0.95
"""Of a device's memory that a plan may use; the rest is lost between blocks."""

ROOMY_SHARE = 0.8
"""Of the room that is proposed to be filled; the estimate may be off by the rest."""


def describe(case: Case, estimates: Sequence[Estimate], title: str, free_disk: float | None) -> str:
    """Return the whole plan.

    Args:
        case: What it was made from.
        estimates: Of all stages, in order.
        title: The file of params.
        free_disk: Bytes that are free where the pipeline would run; None: not known.
    """
    hardware = case.hardware
    parts = [
        [f"{title} on {hardware.name}: {size(hardware.memory)}{' each' if hardware.is_gpu else ''}, {hardware.basis}"],
        _models(case),
        stage_table(case, estimates),
        zero_table(case),
        notes(case),
        verdict(case, estimates, free_disk),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def stage_table(case: Case, estimates: Sequence[Estimate]) -> list[str]:
    """Return a line per stage, and the totals."""
    rows = [("stage", "tokens", "FLOP", "memory", "disk", "time", "")]
    for one in estimates:
        where = "GPU" if case.hardware.is_gpu and one.stage in ON_GPU else "CPU"
        counts = count(one.tokens), count(one.operations)
        rows.append(
            (one.stage, *counts, f"{size(one.memory)} {where}", size(one.disk), duration(one.seconds), one.note)
        )
    every = ((one.tokens, one.operations, one.disk, one.seconds) for one in estimates)
    tokens, operations, disk, seconds = map(sum, zip(*every, strict=True))
    fetched = f"and {size(downloads(case))} of models, fetched once"
    rows.append(("total", count(tokens), count(operations), "", size(disk), duration(seconds), fetched))
    return aligned(rows)


def zero_table(case: Case) -> list[str]:
    """Return the memory of training by ZeRO stage, the configured one marked."""
    own = case.setup
    where = "per GPU" if own.is_gpu else "of the machine, by one process" if own.ranks == 1 else "of each process"
    rows: list[tuple[str, ...]] = [("ZeRO", "weights", "gradients", "optimizer", "buffers", "activations", "peak", "")]
    for stage in range(4):
        changed = own._replace(zero_stage=stage)
        parts = [size(part) for part in (*states(changed), activations(changed))]
        peak = needed_memory(changed)
        marks = ["<- configured"] * (stage == own.zero_stage) + ["does not fit"] * (peak > _room(case))
        rows.append((str(stage), *parts, size(peak), ", ".join(marks)))
    trained = f"{count(own.trained)} of {count(own.shape.parameters)} weights trained"
    title = f"train: memory {where}; ranks: {own.ranks}, tokens at once: {own.tokens:,}, {trained}"
    reading = size(host_memory(case.models.checkpoint, own))
    host = f"Before that, all ranks read the checkpoint: {reading} of the CPU's memory."
    return [title, *aligned(rows), *([host] if own.is_gpu else [])]


def notes(case: Case) -> list[str]:
    """Return where the counts come from, what was assumed, and what the configuration leaves unused."""
    lines = [f"Texts are counted from {case.counts.basis}."]
    if case.counts.assumed:
        names = f"Rows are assumed ({ASSUMED.rows:,} each) of {', '.join(case.counts.assumed)}."
        lines += textwrap.wrap(f"{names} Say what you know: --rows TASK=NUMBER", 110)
    unsized, filtered = held_out.uncertain(case.settings)
    if unsized:
        names = f"Held-out rows are assumed ({held_out.ASSUMED_ROWS:,} each) of {', '.join(unsized)}."
        lines += textwrap.wrap(f"{names} Set rows there.", 110)
    if filters := [*case.counts.filtered, *(name for name in filtered if name not in case.counts.filtered)]:
        lines += textwrap.wrap(f"Not applied: {', '.join(filters)}. There are at most so many rows.", 110)
    gpus, processes = case.hardware.devices, case.settings.train.processes
    if case.hardware.is_gpu and case.ranks < gpus:
        more = "" if case.settings.train.batch_queries >= 2 * gpus else f", train.batch_queries: {2 * gpus} or more"
        lines.append(f"Training uses {case.ranks} of {gpus} GPUs; to use all: train.processes: {gpus}{more}")
    if case.hardware.is_gpu and processes < case.ranks:
        lines.append(f"{case.ranks} ranks are more than one machine's: a launcher starts them (docs/SCALING.md)")
    if case.hardware.is_gpu and (wide := [name for name in ON_GPU if getattr(case.settings, name).dtype == "float32"]):
        keys = ", ".join(f"{name}.dtype" for name in wide)
        lines.append(f"GPUs are taken to compute in bfloat16, which is faster than the float32 of {keys}.")
    done, own, roomy = case.work, case.setup, case.work.largest
    while roomy < done.largest_batch and needed_memory(own._replace(tokens=2 * roomy)) <= ROOMY_SHARE * _room(case):
        roomy *= 2
    if done.cut_share > 0.1 and roomy > done.largest:
        own = own._replace(tokens=roomy)
        lines.append(
            f"{done.cut_share:.0%} of the tokens are embedded twice; there is memory for fewer: "
            f"train.max_micro_step_tokens: {roomy} ({size(needed_memory(own))})"
        )
    fewer = [own._replace(recomputed=layers) for layers in range(own.recomputed)]
    kept = next((one for one in fewer if needed_memory(one) <= ROOMY_SHARE * _room(case)), None)
    if own.is_gpu and kept:
        share = (own.recomputed - kept.recomputed) / own.shape.layers
        saved = share / (2 + (own.method == "full") + own.recomputed / own.shape.layers)
        lines.append(
            f"{saved:.0%} of training's operations compute layers again, but there is memory to keep them: "
            f"train.gradient_checkpointing: {kept.recomputed or 'false'} ({size(needed_memory(kept))})"
        )
    return lines


def verdict(case: Case, estimates: Sequence[Estimate], free_disk: float | None) -> list[str]:
    """Return one line that says whether it fits, and a line for each thing that does not."""
    hardware, own = case.hardware, case.setup
    faults = []
    for one in estimates:
        if one.memory <= _room(case) or (hardware.is_gpu and one.stage not in ON_GPU):
            continue
        what = f"{one.stage} needs {size(one.memory)} of {size(hardware.memory)}"
        faults.append(f"{what}{' per GPU' if hardware.is_gpu else ''}: {_remedy(one.stage, own, case)}")
    if case.settings.train.processes > hardware.devices and hardware.is_gpu:
        there = "there is 1 GPU" if hardware.devices == 1 else f"there are {hardware.devices} GPUs"
        faults.append(
            f"train.processes is {case.settings.train.processes}, but {there}: set train.processes to "
            f"{hardware.devices}"
        )
    if case.settings.train.batch_queries < 2 * case.ranks:
        faults.append(
            f"train.batch_queries is {case.settings.train.batch_queries}, but there are {case.ranks} ranks, and each "
            "needs a query of every batch, a task's last one included, which may hold half as many: set it to "
            f"{2 * case.ranks} or more"
        )
    beside = _beside_gpus(case, estimates) if hardware.is_gpu else {}
    for stage, needed in beside.items():
        if hardware.beside is not None and needed > FREE_SHARE * hardware.beside:
            what = "train, while it loads texts and checkpoint," if stage == "train" else stage
            faults.append(
                f"{what} needs {size(needed)} of the machine's {size(hardware.beside)}: "
                f"{_remedy_beside(stage, FREE_SHARE * hardware.beside, case)}"
            )
    disk = sum(one.disk for one in estimates) + downloads(case)
    if free_disk is not None and disk > free_disk:
        faults.append(f"it writes {size(disk)}, and {size(free_disk)} are free here: make room, or set fewer `rows`")
    time = duration(sum(one.seconds for one in estimates))
    if not faults:
        part = needed_memory(own) / hardware.memory
        memory = f" and {size(max(beside.values()))} of the machine's memory" if beside else ""
        where = "GPUs' memory" if beside else "memory"
        return [f"Verdict: fits. {time}, {size(disk)} of disk{memory}, training in {part:.0%} of the {where}."]
    sure = " It is refused by `train`." if floor(own) > hardware.memory else ""
    return [f"Verdict: does not fit.{sure}", *(f"  - {fault}" for fault in faults)]


def _remedy(stage: str, own: Setup, case: Case) -> str:
    if stage in MODEL_KEYS:
        return _scoring_remedy(stage, case)
    if stage != "train":
        return "use a larger machine, or a smaller student.model" if stage == "export" else "set fewer `rows`"
    found = remedies(own, _room(case), needed_memory)
    return (
        "set " + ", or ".join(found) if found else "no parameter is enough: use more GPUs, or a smaller student.model"
    )


def _scoring_remedy(stage: str, case: Case) -> str:
    """Return the largest power of two tokens at once that fits, unless one text of the longest is already too much."""
    largest, longest = getattr(case.settings, stage).tokens_per_batch, longest_text(stage, case)
    if scoring_memory(stage, case, largest) <= _room(case):  # of `evaluate`, where it is the teacher that does not fit
        return "as for retrieve_dense, or leave teacher out of evaluate.baselines"
    powers = [2**power for power in reversed(range(largest.bit_length())) if longest <= 2**power < largest]
    for tokens in powers:
        needed = scoring_memory(stage, case, tokens)
        if needed <= _room(case):
            return f"set {stage}.tokens_per_batch: {tokens} ({needed / GIB:.1f} GiB)"
    weights = size(inference_weights(stage, scored_by(stage, case), case.hardware, is_wide=is_wide(stage, case)))
    where = "GPU" if case.hardware.is_gpu else "machine"
    return f"the weights alone take {weights}; use a larger {where}, or a smaller {MODEL_KEYS[stage]}"


def _beside_gpus(case: Case, estimates: Sequence[Estimate]) -> dict[str, float]:
    """Return what needs a machine's own memory beside its GPUs: stages that use none, and `train` while it loads."""
    found = {one.stage: one.memory for one in estimates if one.stage not in ON_GPU}
    return found | {"train": _loading(case, min(case.ranks, GPUS_OF_MACHINE))}


def _loading(case: Case, ranks: int) -> float:
    """Return what so many ranks of a machine need of its memory while they read the texts, then the checkpoint."""
    texts = ranks * (LIBRARIES["train"] + read_by_rank(case))
    return max(texts, host_memory(case.models.checkpoint, case.setup._replace(ranks=ranks)))


def _remedy_beside(stage: str, room: float, case: Case) -> str:
    if stage != "train":
        return _remedy(stage, case.setup, case)
    processes = int(room // _loading(case, ranks=1))
    return f"set train.processes to {processes}" if processes else "use a larger machine, or a smaller student.model"


def _room(case: Case) -> float:
    return FREE_SHARE * case.hardware.memory


def _models(case: Case) -> list[str]:
    settings, models = case.settings, case.models
    rows = [
        ("student", count(models.student.parameters), f"{models.student.layers} layers of {models.student.hidden}"),
        ("dense teacher", count(models.dense.parameters), f"{models.dense.layers} layers of {models.dense.hidden}"),
        (
            "reranker",
            count(models.reranker.parameters),
            f"{models.reranker.layers} layers of {models.reranker.hidden}, {settings.rerank.kind}",
        ),
    ]
    return aligned(rows)
