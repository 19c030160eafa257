"""Whether models that are on this machine are what their stages need: some of those run after hours of others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from anna.errors import InputError
from anna.known_shapes import known_shape
from anna.modeling.attention import check_architecture, check_direction
from anna.modeling.checkpoint import check_biases
from anna.modeling.encoder_config import CONFIG_FILE
from anna.modeling.outline import HEAD, outline
from anna.modeling.readout import check_start
from anna.origins import FilesOrigin, describe, local_folder
from anna.teachers.bi_encoder import MODULES, check_modules
from anna.training.alone import check_reads_early
from anna.training.checks import check_positions


def check_folders(found: Mapping[str, Any]) -> None:
    """Refuse folders of this machine that hold no model, and a student with fewer layers than are asked for."""
    student, dense, reranker = (found[name] for name in ("student", "retrieve_dense", "rerank"))
    for place, origin, needed in (
        ("student.model", student.model, "config.json"),
        ("retrieve_dense.model", dense.model, MODULES),
        ("rerank.model", reranker.model, "config.json"),
    ):
        is_local = isinstance(origin, FilesOrigin) and origin.path.exists() and origin.path.suffix != ".gguf"
        if is_local and not (origin.path / needed).is_file():
            raise InputError(
                f"{place}: {origin.path} has no {needed}, expected a folder with a model; correct the path"
            )
    shape = known_shape(student.model)
    if shape is not None and (student.layers or 0) > shape.layers:
        raise InputError(
            f"student.layers is {student.layers}, but {describe(student.model)} has {shape.layers}; choose at most "
            f"{shape.layers}, or null"
        )


def check_student(student: Any, train: Any, max_tokens: int) -> None:
    """Refuse a student that `train` would refuse after all teachers, where it is on this machine."""
    folder = _model_folder(student.model)
    if folder is None:
        return
    model = _outline("student.model", AutoModelForCausalLM, folder, spare=HEAD)
    check_architecture(model)
    if not train.quantize:
        check_biases(model.config)
    check_direction(model, student.attention)
    if student.last_layer == "weighted_mean":
        check_start(model.config)
        if (folder / CONFIG_FILE).is_file():
            raise InputError(
                f"student.model {folder} has been trained ({CONFIG_FILE}), and student.last_layer weighted_mean would "
                "write its last layer anew; set that to pretrained"
            )
    check_positions(model.config, max_tokens)
    if train.last_layer_first:
        check_reads_early(model.config.model_type)


def check_dense(dense: Any) -> None:
    """Refuse a dense teacher that `retrieve_dense` would refuse, where it is on this machine."""
    folder = local_folder(dense.model)
    if folder and (folder / MODULES).is_file():
        check_modules(folder)


def check_reranker(rerank: Any) -> None:
    """Refuse a reranker that `rerank` would refuse, where it is on this machine."""
    folder = _model_folder(rerank.model)
    if folder is None:
        return
    if rerank.kind == "cross_encoder":
        _outline("rerank.model", AutoModelForSequenceClassification, folder)
    else:
        check_architecture(_outline("rerank.model", AutoModelForCausalLM, folder))


def _outline(place: str, kind: Any, folder: Path, **options: Any) -> PreTrainedModel:
    try:
        return outline(kind, folder, **options)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None


def _model_folder(origin: Any) -> Path | None:
    folder = local_folder(origin)
    return folder if folder and (folder / "config.json").is_file() else None


def check_index(dense: Any) -> None:
    """Refuse an index that cannot divide the dense teacher's vectors, where their size is known unfetched."""
    shape, folder, parts = known_shape(dense.model), local_folder(dense.model), dense.index.m
    modules = folder / MODULES if folder else None
    if modules and modules.is_file() and "Dense" in modules.read_text(encoding="utf-8"):
        return  # a layer after pooling, which may give any size
    if shape is not None and shape.hidden % parts:
        fitting = next(number for number in range(parts, 0, -1) if shape.hidden % number == 0)
        raise InputError(
            f"retrieve_dense.index.m is {parts}, which does not divide the {shape.hidden} dimensions of "
            f"{describe(dense.model)}; set it to {fitting}"
        )
