"""What a training run leaves: the encoder, its metrics and its curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from peft import PeftModel
from torch import Tensor

from anna import io
from anna.modeling.encoder import Encoder
from anna.modeling.encoder_config import ADAPTER_FOLDER, CARD_FILE
from anna.schemas import CURVE, VALIDATION
from anna.training.checkpoint import Record


class Outputs(NamedTuple):
    """Where a run leaves its results; nothing appears there before it has succeeded."""

    encoder: Path
    metrics: Path
    curve: Path
    validation: Path


def save_encoder(folder: Path, encoder: Encoder, state: dict[str, Tensor]) -> None:
    """Save weights (whole model or adapter), tokenizer and encoder.json, atomically."""
    with io.atomic(folder) as temporary:
        place = temporary / ADAPTER_FOLDER if isinstance(encoder.backbone, PeftModel) else temporary
        encoder.backbone.save_pretrained(place, state_dict=state)
        (place / CARD_FILE).unlink(missing_ok=True)  # peft's empty model card
        encoder.tokenizer.save_pretrained(temporary)
        encoder.config.save(temporary)


def save_records(outputs: Outputs, records: Sequence[Record], summary: Mapping[str, Any]) -> None:
    """Save the curve, the validations and the metrics, each atomically."""
    validated = [record for record in records if "ndcg_at_10" in record]
    if "ndcg_at_10_before" in records[0]:
        validated.insert(0, {"step": 0, "queries": 0, "ndcg_at_10": records[0]["ndcg_at_10_before"]})
    for path, columns, rows in (
        (outputs.curve, CURVE, records),
        (outputs.validation, VALIDATION, validated),
    ):
        io.write_csv(path, columns, [[row[name] for name in columns] for row in rows])
    io.write_json(outputs.metrics, summary)


def summary(
    records: Sequence[Mapping[str, Any]], told: Mapping[str, float], num_groups: int, kept: int, update: float
) -> dict[str, Any]:
    """Return the run's metrics: means over its first and its last tenth, tokens, and what of the weights was saved.

    Args:
        records: One per step.
        told: Of the last layer's training before them.
        num_groups: Groups trained on.
        kept: Step whose weights are saved.
        update: How far they moved, relative to their size.
    """
    tenth = max(1, len(records) // 10)

    def mean(name: str, part: Sequence[Mapping[str, Any]]) -> float:
        return round(sum(float(record[name]) for record in part) / len(part), 4)

    return {
        **({"last_layer_first": dict(told)} if told else {}),
        "groups": num_groups,
        "steps": len(records),
        "queries": records[-1]["queries"],
        **{f"{name}_first_tenth": mean(name, records[:tenth]) for name in ("loss", "info_nce", "soft_label_ce")},
        **{f"{name}_last_tenth": mean(name, records[-tenth:]) for name in ("loss", "info_nce", "soft_label_ce")},
        "tokens": sum(record["tokens"] for record in records),
        "tokens_saved": sum(record["tokens_saved"] for record in records),
        "kept_step": kept,
        **{name: records[0][name] for name in ("ndcg_at_10_before",) if name in records[0]},
        **{name: records[kept - 1][name] for name in ("ndcg_at_10",) if name in records[kept - 1]},
        "relative_update": round(update, 6),
    }
