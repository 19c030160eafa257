"""A merged model that plain `SentenceTransformer(path)` loads, and proof that it is the encoder that was trained."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from peft import PeftModel
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Normalize, Pooling, Transformer

from anna import io
from anna.errors import InputError
from anna.modeling.encoder import Encoder
from anna.modeling.encoder_config import ADAPTER_FOLDER, CONFIG_FILE, EncoderConfig
from anna.modeling.student import StudentParams, load_student
from anna.origins import fetch_model

WITH_EXAMPLES = "+examples"
"""Ending of the name of a task's prompt with in-context examples; the bare name is the zero-shot prompt."""


def load_trained(folder: Path, student: StudentParams) -> Encoder:
    """Return the encoder that training left in `folder`, its adapter, if any, still apart from the weights.

    Args:
        folder: What `train` wrote.
        student: Where the weights below an adapter come from.
    """
    if not (folder / ADAPTER_FOLDER).is_dir():
        return Encoder.load(folder)
    config = EncoderConfig.load(folder)
    # What training saw, in numbers that an adapter can be added to.
    backbone, tokenizer = load_student(
        fetch_model(student.model), student.layers, quantize=config.quantize, is_packed=False
    )
    backbone = PeftModel.from_pretrained(backbone, folder / ADAPTER_FOLDER)
    return Encoder(backbone, tokenizer, config, torch.float32).eval()


def named_prompts(config: EncoderConfig) -> dict[str, str]:
    """Return every task's prompt for sentence-transformers: `<task>`, and `<task>+examples` where it has examples."""
    prompts = {task: config.prefix(task) for task in config.tasks}
    for task, prompt in config.tasks.items():
        if prompt.examples:
            prompts[task + WITH_EXAMPLES] = config.prefix(task, len(prompt.examples))
    return prompts


def export(encoder: Encoder, folder: Path) -> None:
    """Merge the adapter, if any, into the weights and write a sentence-transformers model, atomically."""
    backbone = encoder.backbone
    if isinstance(backbone, PeftModel):
        backbone = backbone.merge_and_unload()
    with io.atomic(folder) as temporary:
        backbone.save_pretrained(temporary)
        encoder.tokenizer.save_pretrained(temporary)
        transformer = Transformer(str(temporary), max_seq_length=encoder.config.max_tokens)
        modes = {"last_token": "lasttoken", "mean": "mean"}
        pooling = Pooling(backbone.config.hidden_size, pooling_mode=modes[encoder.config.pooling])
        model = SentenceTransformer(
            modules=[transformer, pooling, Normalize()], prompts=named_prompts(encoder.config), device="cpu"
        )
        model.save_pretrained(str(temporary), create_model_card=False)
        encoder.config.save(temporary)


def samples(queries: pa.Table, corpus: pa.Table, count: int, config: EncoderConfig) -> dict[str, list[str]]:
    """Return texts to compare, by prompt name ("" for bare): half documents, half queries of all tasks and prompts."""
    half = count // 2
    chosen = {"": corpus["text"].to_pylist()[:: max(1, corpus.num_rows // (count - half))][: count - half]}
    names = sorted(named_prompts(config))
    rows = queries.select(["task", "text"]).to_pylist()[:: max(1, queries.num_rows // max(half, 1))][:half]
    for number, row in enumerate(rows):
        fitting = [name for name in names if name.removesuffix(WITH_EXAMPLES) == row["task"]]
        chosen.setdefault(fitting[number % len(fitting)], []).append(row["text"])
    return chosen


def embed(encoder: Encoder, texts: dict[str, list[str]]) -> dict[str, NDArray[np.float32]]:
    """Return the training encoder's vectors of `texts`, by prompt name."""
    prompts = {"": "", **named_prompts(encoder.config)}
    return {
        name: encoder.encode(
            part, prefix=prompts[name], max_tokens=_room(encoder, prompts[name]), tokens_per_batch=2048
        )
        for name, part in texts.items()
    }


def compare(expected: dict[str, NDArray[np.float32]], texts: dict[str, list[str]], folder: Path, least: float) -> float:
    """Return the smallest cosine between expected vectors and those of plain sentence-transformers on `folder`.

    Raises:
        InputError: If it is not above `least`: the exported model is not the one that was trained.
    """
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    smallest = 1.0
    for name, part in texts.items():
        got_ND = model.encode(part, prompt_name=name or None, batch_size=16, show_progress_bar=False)
        cosines = (expected[name] * got_ND).sum(axis=1)
        worst = int(cosines.argmin())
        if not cosines[worst] > least:
            raise InputError(
                f"{folder}: text {part[worst][:60]!r} (prompt {name!r}) has cosine {cosines[worst]:.6f} with the "
                f"training encoder, expected > {least}; do not use this export. Check {CONFIG_FILE} and the tokenizer"
            )
        smallest = min(smallest, float(cosines[worst]))
    return smallest


def _room(encoder: Encoder, prompt: str) -> int:
    """Return how many tokens of text fit after `prompt`, as sentence-transformers cuts them."""
    return encoder.config.max_tokens - encoder.count(prompt)
