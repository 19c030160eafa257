"""What of params.yaml a plan reads; the other keys are passed over.

A plan imports no stage, so it takes the file, not their classes: `anna.check` has held it against those, and a test
holds that each key here is one of theirs, with the same default.
"""

from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict

from anna.origins import Origin


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Source(_Part):
    """A training source, or a held-out one, or its distractors."""

    origin: Origin
    columns: dict[str, str]
    task: str = ""
    kind: str = ""
    type: str = ""
    rows: int | None = None
    train_rows: int | None = None
    require: tuple[str, ...] = ()
    where: dict[str, Any] = {}
    unless: dict[str, Any] = {}
    distractors: tuple["Source", ...] = ()


class Ingest(_Part):
    """Sources."""

    validation_share: float
    examples_per_task: int
    train: tuple[Source, ...]
    held_out: tuple[Source, ...] = ()


class Dense(_Part):
    """The dense teacher."""

    model: Origin
    max_tokens: int
    tokens_per_batch: int = 8192
    depth: int
    index: dict[str, Any]


class Lexical(_Part):
    """BM25."""

    depth: int


class Rerank(_Part):
    """The reranker."""

    kind: Literal["query_likelihood", "cross_encoder"]
    model: Origin
    depth: int
    queries_per_task: int | None
    doc_tokens: int
    query_tokens: int
    tokens_per_batch: int


class Scoring(_Part):
    """Where teachers and evaluation compute."""

    engine: str
    workers: int | None
    gpus: float


class Filter(_Part):
    """Hard negatives."""

    negatives_per_query: int


class Student(_Part):
    """The student."""

    model: Origin
    layers: int | None
    pooling: str
    attention: str
    last_layer: str


class Lora(_Part):
    """Adapters."""

    rank: int


class Alone(_Part):
    """Training of the last layer alone."""

    epochs: int
    batch_queries: int


class Train(_Part):
    """Training."""

    method: Literal["full", "lora"]
    lora: Lora
    freeze_token_table: bool
    gradient_checkpointing: bool | int
    zero_stage: Literal[0, 1, 2, 3]
    quantize: str | None
    processes: int
    dtype: str
    epochs: int
    max_steps: int | None
    batch_queries: int
    chain_negatives: bool
    max_micro_step_tokens: int | None
    query_tokens: int
    doc_tokens: int
    max_examples: int
    last_layer_first: Alone | None
    checkpoint_steps: int | None
    validation_steps: int | None
    validation_queries: int


class Instruction(_Part):
    """A task's prompt."""

    instruction: str
    symmetric: bool


class Prompts(_Part):
    """Prompts."""

    example_tokens: int
    tasks: dict[str, Instruction]


class Evaluate(_Part):
    """Evaluation."""

    benchmark: str
    tasks: list[str] | None
    baselines: list[str]
    with_examples: bool
    max_tokens: int
    tokens_per_batch: int
    dtype: str


class Settings(_Part):
    """All sections that a plan reads."""

    ingest: Ingest
    retrieve_bm25: Lexical
    retrieve_dense: Dense
    rerank: Rerank
    scoring: Scoring
    filter: Filter
    student: Student
    train: Train
    prompts: Prompts
    evaluate: Evaluate

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return what a plan reads of `path`, which `anna.check` has passed."""
        return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
