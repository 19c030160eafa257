"""A model that is not whole is refused where transformers would go on with random weights or an empty vocabulary."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from anna.errors import InputError
from anna.modeling.checkpoint import load_causal_lm
from anna.modeling.outline import HEAD, outline
from anna.modeling.student import load_student
from anna.teachers import bi_encoder, cross_encoder
from tests.teachers.models import save_bi_encoder, save_cross_encoder

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "model"))


def rewrite(folder: Path, rename: Callable[[str], str | None]) -> None:
    """Give each weight another name, or leave it out."""
    weights = load_file(folder / "model.safetensors")
    named = {rename(name): weight for name, weight in weights.items()}
    save_file({name: weight for name, weight in named.items() if name}, folder / "model.safetensors", {"format": "pt"})


def test_a_whole_model_has_no_values_and_says_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = outline(AutoModelForCausalLM, folder)
    assert {weight.device for weight in model.parameters()} == {torch.device("meta")}
    assert capfd.readouterr().err == ""


def test_a_layer_that_is_missing_is_refused(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rewrite(folder, lambda name: None if "layers.1." in name else name)
    with pytest.raises(InputError, match=r"lacks 9 weights of a MistralForCausalLM \(model.layers.1.input_layernorm"):
        load_causal_lm(folder)
    assert capfd.readouterr().err == ""


def test_weights_of_other_names_are_missing(folder: Path) -> None:
    rewrite(folder, lambda name: name.replace("layers", "blocks"))
    with pytest.raises(InputError, match="lacks 27 weights of a MistralForCausalLM"):
        load_student(folder, 1)


def test_a_student_needs_no_head_and_a_reranker_does(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    load_student(folder, 1)
    outline(AutoModelForCausalLM, folder, spare=HEAD)
    with pytest.raises(InputError, match=r"lacks 1 weights of a MistralForCausalLM \(lm_head.weight first\)"):
        load_causal_lm(folder)


@pytest.mark.parametrize("damage", ["cut", "pointer", "shape"])
def test_a_damaged_file_is_refused_in_one_line(folder: Path, damage: str) -> None:
    path = folder / "model.safetensors"
    if damage == "shape":
        weights = load_file(path)
        save_file({name: weight[:1] for name, weight in weights.items()}, path, {"format": "pt"})
    else:
        content = path.read_bytes()[:-1] if damage == "cut" else b"version https://git-lfs.github.com/spec/v1\noid sha"
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"holds no model of safetensors and tokenizer.json \(.*\); correct it$"):
        load_causal_lm(folder)


def test_a_teacher_without_its_tokenizer_is_refused(tmp_path: Path) -> None:
    dense, pairs = save_bi_encoder(tmp_path / "dense"), save_cross_encoder(tmp_path / "cross")
    for each in (dense, pairs):
        for name in TOKENIZER:
            (each / name).unlink(missing_ok=True)
    with pytest.raises(InputError, match=r"has a tokenizer of 5 tokens for a model of \d\d; add its tokenizer.json"):
        bi_encoder.load_model(dense, 32)
    with pytest.raises(InputError, match=r"has a tokenizer of 5 tokens for a model of \d\d; add its tokenizer.json"):
        cross_encoder.load_cross_encoder(pairs, 32)


def test_a_model_of_vectors_is_no_cross_encoder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lacks 2 weights of a BertForSequenceClassification \(classifier.bias first"):
        cross_encoder.load_cross_encoder(save_bi_encoder(tmp_path), 32)


def test_a_teacher_of_vectors_needs_all_layers_and_no_pooler(tmp_path: Path) -> None:
    folder = save_bi_encoder(tmp_path)
    rewrite(folder, lambda name: None if name.startswith("pooler") else name)
    bi_encoder.load_model(folder, 32)
    rewrite(folder, lambda name: None if "layer.0.attention" in name else name)
    with pytest.raises(InputError, match=r"lacks \d+ weights of a BertModel \(encoder.layer.0.attention.output"):
        bi_encoder.load_model(folder, 32)
