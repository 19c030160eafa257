"""How the student is trained: the `train` section of params.yaml."""

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from anna.modeling.hardware import Dtype, Quantize
from anna.params import Params, Strict


class LoraParams(Strict):
    """Low-rank adapters on all linear layers."""

    rank: int = Field(gt=0)
    """BGE-EN-ICL: 32."""
    alpha: int = Field(gt=0)
    """BGE-EN-ICL: 64."""
    dropout: float = Field(ge=0, lt=1)


class AloneParams(Strict):
    """Training of the last layer alone, before that of all."""

    epochs: int = Field(gt=0)
    batch_queries: int = Field(ge=2)
    """Queries per batch."""
    learning_rate: float = Field(gt=0)
    """Peak."""


class TrainParams(Params):
    """How the student is trained."""

    section: ClassVar[str] = "train"

    seed: int
    """Root of order, examples and dropout; apart from `random.seed`, so that a new seed keeps the data."""
    method: Literal["full", "lora"]
    """Which weights move: all, or adapters."""
    lora: LoraParams
    freeze_token_table: bool
    """Leave the token table as it is (full only): most of a small model's weights, and rarely worth their time."""
    gradient_checkpointing: bool | Annotated[int, Field(gt=0)]
    """Layers whose activations are computed again in the backward pass, not kept: true: all; or the first so many.

    All take up to half as much time again, and a fraction of the memory.
    """
    zero_stage: Literal[0, 1, 2, 3]
    """DeepSpeed ZeRO: 1 shards optimizer states over ranks, 2 gradients too, 3 weights too."""
    quantize: Quantize | None
    """Hold the frozen matrices below the adapters in 4 bits (QLoRA): for `lora` at ZeRO 0 to 2, with bitsandbytes."""
    processes: int = Field(gt=0)
    """Processes started on this machine when no launcher has started us."""
    dtype: Dtype
    """Of matrix products; auto is bfloat16 where the hardware has it."""
    epochs: int = Field(gt=0)
    max_steps: int | None = Field(gt=0)
    """Stop after so many steps; null: all of `epochs`. The learning rate ends at zero either way, unless the
    warm-up is longer."""
    batch_queries: int = Field(ge=2)
    """Queries per batch, over all ranks: each is compared with all documents of the batch."""
    chain_negatives: bool
    """Whether a query is followed by one whose positive is its hard negative: negatives at no cost (ours)."""
    max_micro_step_tokens: int | None = Field(gt=0)
    """Tokens computed at once on each rank; a larger batch is cut and embedded twice (GradCache). null: never cut."""
    query_tokens: int = Field(ge=4)
    """Longest query, EOS included; the prompt comes on top."""
    doc_tokens: int = Field(ge=4)
    """Longest document, EOS included."""
    max_examples: int = Field(ge=0)
    """k_max: each batch shows k in-context examples, k uniform in 0..k_max (BGE-EN-ICL: 5)."""
    temperature: float = Field(gt=0)
    """Divides the cosines, in all terms of the loss (BGE-EN-ICL: 0.02)."""
    kd_weight: float = Field(ge=0)
    """Weight of the soft-label term (BGE-EN-ICL: 1); 0 trains on hard labels alone."""
    batch_kd_weight: float = Field(ge=0)
    """Weight of the cross-entropy with the dense teacher's probabilities of each text over all others of the batch."""
    batch_teacher_temperature: float = Field(gt=0)
    """Divides the dense teacher's cosines there."""
    false_negative_margin: float | None = Field(ge=0)
    """In-batch documents with a cosine above the positive's by this are masked (Qwen3-Embedding: 0.1); null: none."""
    matryoshka_dims: tuple[Annotated[int, Field(gt=0)], ...]
    """The loss is averaged over the whole vector and its first so many dimensions, each below the student's."""
    last_layer_first: AloneParams | None
    """How the last layer is trained alone before all are (full only, ours); null: it is not."""
    learning_rate: float = Field(gt=0)
    """Peak (BGE-EN-ICL: 1e-4 with LoRA)."""
    warmup_steps: int = Field(ge=0)
    weight_decay: float = Field(ge=0)
    max_gradient_norm: float = Field(gt=0)
    checkpoint_steps: int | None = Field(gt=0)
    """Steps between checkpoints, from which a killed run continues exactly; null: it begins again."""
    validation_steps: int | None = Field(gt=0)
    """Steps between validations; there is one before the first step and one after the last, too. null: these alone."""
    validation_queries: int = Field(ge=0)
    """Queries of the validation split that are ranked, at most, of all tasks together; 0: no validation."""
    keep: Literal["best", "last"]
    """Which weights are saved: those of the highest validation nDCG@10 in training, or those after the last step.

    Weights before training are never kept; `train` warns where the best are below them."""

    @field_validator("keep")
    @classmethod
    def _has_a_choice(cls, keep: str, info: ValidationInfo) -> str:
        if keep == "best" and not (info.data.get("validation_steps") and info.data.get("validation_queries")):
            raise ValueError(
                "there is one validation at most to choose by; set validation_steps and validation_queries above 0, or "
                "this to last"
            )
        if keep == "best" and (info.data.get("max_steps") or math.inf) <= info.data["validation_steps"]:
            raise ValueError(
                f"there is one validation alone to choose by, after the last of {info.data['max_steps']} steps; set "
                "validation_steps below max_steps, or this to last"
            )
        return keep

    @field_validator("last_layer_first")
    @classmethod
    def _is_whole(cls, alone: AloneParams | None, info: ValidationInfo) -> AloneParams | None:
        if alone and info.data.get("method") == "lora":
            raise ValueError("an adapter holds none of the last layer's own weights; set method full, or this to null")
        return alone

    @field_validator("quantize")
    @classmethod
    def _fits(cls, quantize: Quantize | None, info: ValidationInfo) -> Quantize | None:
        if quantize and (info.data.get("method") == "full" or info.data.get("zero_stage") == 3):
            raise ValueError("4-bit matrices cannot move or be sharded; set method lora and zero_stage 0 to 2, or null")
        return quantize
