"""One pass over the planned batches: step, record, validate, checkpoint."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from anna import log
from anna.errors import InputError
from anna.modeling.encoder import Encoder
from anna.training import engine as engines
from anna.training import step
from anna.training.batches import Batch, Texts
from anna.training.checkpoint import Checkpoints, Record
from anna.training.live import start
from anna.training.recipe import TrainParams
from anna.training.schedule import learning_rate

_log = logging.getLogger(__name__)

_FALL = 0.1
"""Fall of nDCG@10 that is warned of where the last weights are kept, whatever they score: with a few dozen validation
queries a smaller one can be chance (ours)."""


class Place(NamedTuple):
    """Where in a run a step is."""

    step: int
    """From 1."""
    steps: int
    """Of the whole run."""
    queries_before: int
    """That earlier steps have seen."""


def train(
    engine: Any,
    encoder: Encoder,
    batches: Sequence[Batch],
    texts: Texts,
    recipe: TrainParams,
    *,
    checkpoints: Checkpoints | None = None,
    validate: Callable[[], float] | None = None,
    live: Path | None = None,
) -> list[Record]:
    """Take one optimizer step per batch, from the last checkpoint on, and return one record per step of the whole run.

    A validation before the first step goes into its record, and kept weights that rank below it are warned of.

    Args:
        engine: Around the encoder, fresh.
        encoder: What is trained.
        batches: Of the whole run.
        texts: What the batches name.
        recipe: How to train.
        checkpoints: Where the run's state is kept, and its best weights; None keeps nothing.
        validate: Returns nDCG@10, called by all ranks; None leaves validation out.
        live: Folder for DVCLive; None writes nothing while the run goes on.

    Raises:
        InputError: If a loss or gradient norm is not finite, or the checkpoint is of a run under other conditions.
    """
    records = checkpoints.resume(engine) if checkpoints else []
    monitor = start(live, records) if live and dist.get_rank() == 0 else None
    before = {"ndcg_at_10_before": round(validate(), 6)} if validate and not records else {}
    engine.train()
    for number, batch in log.progress(list(enumerate(batches, 1))[len(records) :], unit="step", desc="training"):
        place = Place(number, len(batches), int(records[-1]["queries"]) if records else 0)
        record = _take(engine, encoder, batch, texts, recipe, place=place)
        records.append(record)
        if number == 1:
            record |= before
        is_last = number == len(batches)
        if validate and (is_last or _is_due(number, recipe.validation_steps)):
            record["ndcg_at_10"] = round(validate(), 6)
            _log.info("step %d/%d: validation nDCG@10 %.4f", number, len(batches), record["ndcg_at_10"])
            if checkpoints and recipe.keep == "best" and best_step(records) == number and not is_last:
                checkpoints.keep_best(engines.weights(encoder.backbone, is_trained=True), number)
        if monitor:
            monitor.write(record)
        if checkpoints and recipe.checkpoint_steps and (is_last or _is_due(number, recipe.checkpoint_steps)):
            checkpoints.save(engine, records, is_last=is_last)
    if monitor:
        monitor.close()
    _warn_of_fall(records, recipe)
    return records


def best_step(records: Sequence[Record]) -> int | None:
    """Return the step of the highest validation nDCG@10, the last of equals, or None without validation."""
    scored = [(record["ndcg_at_10"], int(record["step"])) for record in records if "ndcg_at_10" in record]
    return max(scored)[1] if scored else None


def kept_step(records: Sequence[Record], recipe: TrainParams) -> int:
    """Return the step whose weights are kept; with `keep: best` the last where nothing was validated."""
    return (best_step(records) if recipe.keep == "best" else None) or len(records)


def _warn_of_fall(records: Sequence[Record], recipe: TrainParams) -> None:
    """Say so where the kept weights rank worse than those before training, which are never kept.

    The best are kept because of their rank, so any fall is told; the last whatever their rank, so a far one alone.
    """
    kept = kept_step(records, recipe)
    before = float(records[0].get("ndcg_at_10_before", "nan"))
    after = float(records[kept - 1].get("ndcg_at_10", "nan"))
    if after < before - (0 if recipe.keep == "best" else _FALL):
        _log.warning(
            "validation nDCG@10 was %.4f before training and is %.4f after step %d, whose weights are kept: lower "
            "train.learning_rate (%s)",
            before,
            after,
            kept,
            recipe.learning_rate,
        )


def _is_due(number: int, interval: int | None) -> bool:
    return interval is not None and number % interval == 0


def _take(engine: Any, encoder: Encoder, batch: Batch, texts: Texts, recipe: TrainParams, *, place: Place) -> Record:
    """Take an optimizer step and return its record.

    Raises:
        InputError: If loss or gradient norm is not finite.
    """
    rate = learning_rate(place.step - 1, place.steps, recipe.learning_rate, recipe.warmup_steps)
    for group in engine.optimizer.param_groups:
        group["lr"] = rate
    started = time.perf_counter()
    got = step.take(engine, encoder, batch, texts, recipe)
    seconds = time.perf_counter() - started
    if not math.isfinite(got["loss"]) or not math.isfinite(got["gradient_norm"]):
        raise InputError(
            f"step {place.step} ({batch.task}): loss {got['loss']}, gradient norm {got['gradient_norm']}; nothing is "
            f"saved. Lower train.learning_rate ({recipe.learning_rate}) or raise train.temperature"
        )
    got["soft_label_entropy"] = _mean_entropy(batch)
    counts = {name: int(got.pop(name)) for name in ("tokens", "tokens_saved")}
    cost = {"tokens_per_second": counts["tokens"] / seconds, "peak_memory_gib": log.peak_memory_mib() / 1024}
    if torch.cuda.is_available():
        cost["peak_gpu_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    if place.step % 10 == 0:
        _log.info(
            "step %d/%d %s: loss %.3f (InfoNCE %.3f, soft labels %.3f), gradient norm %.2f, %.1f queries/s",
            place.step,
            place.steps,
            batch.task,
            got["loss"],
            got["info_nce"],
            got["soft_label_ce"],
            got["gradient_norm"],
            len(batch.groups) / seconds,
        )
    values = {name: round(value, 6) for name, value in (got | cost).items()}
    return {
        "step": place.step,
        "queries": place.queries_before + len(batch.groups),
        **counts,
        **values,
        "learning_rate": float(f"{rate:.6g}"),  # near its end it is far below a millionth
        "task": batch.task,
    }


def _mean_entropy(batch: Batch) -> float:
    """Return the mean entropy of the groups' soft labels, in nats."""
    shares = [share for group in batch.groups for share in group.soft_labels if share > 0]
    return -sum(share * math.log(share) for share in shares) / len(batch.groups)
