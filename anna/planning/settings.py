"""What of params.yaml a plan reads. The stages validate every key; here the others are passed over.

A plan stands above all stages, so it takes the file, not their classes; a test holds that each key here is one of
theirs.
"""

from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from anna.errors import InputError
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
    train: tuple[Source, ...]
    held_out: tuple[Source, ...]


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
    """Where teachers compute."""

    engine: str
    workers: int
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
    examples: int
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
        """Return what a plan reads of `path`.

        Raises:
            InputError: If the file is missing, is no YAML, or lacks or mistypes a key that the plan needs.
        """
        try:
            return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except OSError:
            raise InputError(f"{path} does not exist in {Path.cwd()}; name one of presets/, or params.yaml") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}; correct it there") from None
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise InputError(f"{path}: {place or 'the file'}: {first['msg']}; see params.yaml for its form") from None
