"""One training run from groups to a saved encoder."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from anna import io, seeding
from anna.modeling.encoder import Encoder
from anna.modeling.encoder_config import ADAPTER_FOLDER, EncoderConfig, PromptParams, task_prompts
from anna.modeling.hardware import compute_dtype
from anna.modeling.student import StudentParams, load_student
from anna.origins import describe, fetch_model
from anna.training import engine as engines
from anna.training.batches import Batch, Group, check_world, plan_epoch
from anna.training.loop import Texts, train
from anna.training.recipe import TrainParams

_log = logging.getLogger(__name__)


class Outputs(NamedTuple):
    """Where a run leaves its results; nothing appears there before it has succeeded."""

    encoder: Path
    metrics: Path
    curve: Path


def train_encoder(
    *,
    groups: Sequence[Group],
    texts: Texts,
    examples: Mapping[str, Sequence[tuple[str, str]]],
    student: StudentParams,
    prompts: PromptParams,
    recipe: TrainParams,
    outputs: Outputs,
) -> None:
    """Train the student and save encoder, metrics and curve.

    Raises:
        InputError: If a task has no prompt, a batch is too small for the ranks, or training went wrong: nothing is
            saved then.
    """
    rank, world_size = engines.init_distributed()
    torch.manual_seed(seeding.derive_seed(recipe.seed, "torch", rank))
    encoder = new_encoder(student, prompts, examples, recipe)
    for task in sorted({group.task for group in groups}):
        encoder.config.task(task)
    batches = plan(groups, recipe)
    check_world(batches, world_size)
    _log.info(
        "%d groups of %d tasks, %d steps of about %d queries on %d process(es), ZeRO %d, %s",
        len(groups),
        len({g.task for g in groups}),
        len(batches),
        recipe.batch_queries,
        world_size,
        recipe.zero_stage,
        recipe.method,
    )
    engine = engines.start_engine(encoder, recipe)
    before = engines.weights(encoder.backbone, trained_only=True)
    records = train(engine, encoder, batches, texts, recipe)
    after = engines.weights(encoder.backbone, trained_only=True)
    update = engines.check_moved(before, after)
    state = after if recipe.method == "lora" else engines.weights(encoder.backbone, trained_only=False)
    if rank == 0:
        save_encoder(outputs.encoder, encoder, state)
        io.write_csv(outputs.curve, list(records[0]), [list(record.values()) for record in records])
        io.write_json(outputs.metrics, summary(records, len(groups), update))


def new_encoder(
    student: StudentParams,
    prompts: PromptParams,
    examples: Mapping[str, Sequence[tuple[str, str]]],
    recipe: TrainParams,
) -> Encoder:
    """Return the untrained encoder with what the recipe trains set to require gradients."""
    backbone, tokenizer = load_student(fetch_model(student.model), student.layers)
    config = EncoderConfig(
        base=describe(student.model),
        layers=student.layers,
        max_tokens=prompts.max_tokens,
        example_tokens=prompts.example_tokens,
        tasks=task_prompts(prompts, examples, tokenizer),
    )
    encoder = Encoder(backbone, tokenizer, config, compute_dtype(recipe.dtype))
    if recipe.gradient_checkpointing:
        encoder.backbone.gradient_checkpointing_enable({"use_reentrant": False})
    if recipe.method == "lora":
        engines.add_lora(encoder, rank=recipe.lora.rank, alpha=recipe.lora.alpha, dropout=recipe.lora.dropout)
    else:
        encoder.backbone.get_input_embeddings().requires_grad_(not recipe.freeze_token_table)
    return encoder


def plan(groups: Sequence[Group], recipe: TrainParams) -> list[Batch]:
    """Return the batches of the whole run, in order."""
    batches: list[Batch] = []
    for epoch in range(recipe.epochs):
        batches += plan_epoch(
            groups, batch_queries=recipe.batch_queries, max_examples=recipe.max_examples, seed=recipe.seed, epoch=epoch
        )
    return batches[: recipe.max_steps]


def save_encoder(folder: Path, encoder: Encoder, state: dict[str, Tensor]) -> None:
    """Save weights (whole model or adapter), tokenizer and encoder.json, atomically."""
    with io.atomic(folder) as temporary:
        place = temporary / ADAPTER_FOLDER if engines.is_adapted(encoder) else temporary
        encoder.backbone.save_pretrained(place, state_dict=state)
        (place / "README.md").unlink(missing_ok=True)  # peft's empty model card
        encoder.tokenizer.save_pretrained(temporary)
        encoder.config.save(temporary)


def summary(records: Sequence[Mapping[str, Any]], num_groups: int, update: float) -> dict[str, Any]:
    """Return the run's metrics: means over its first and its last tenth, and how far the weights moved."""
    tenth = max(1, len(records) // 10)

    def mean(name: str, part: Sequence[Mapping[str, Any]]) -> float:
        return round(sum(float(record[name]) for record in part) / len(part), 4)

    return {
        "groups": num_groups,
        "steps": len(records),
        "queries": records[-1]["queries"],
        **{f"{name}_first_tenth": mean(name, records[:tenth]) for name in ("loss", "info_nce", "soft_label_ce")},
        **{f"{name}_last_tenth": mean(name, records[-tenth:]) for name in ("loss", "info_nce", "soft_label_ce")},
        "relative_update": round(update, 6),
    }
