"""The exported model, loaded by plain sentence-transformers, is the encoder that was trained."""

from pathlib import Path

import mteb
import numpy as np
import pyarrow as pa
import pytest
import torch
from mteb.models.abs_encoder import get_prompt_name
from mteb.types import PromptType
from sentence_transformers import SentenceTransformer

from anna.errors import InputError
from anna.modeling import export
from anna.modeling.encoder import Encoder
from anna.modeling.encoder_config import EncoderConfig
from anna.training.engine import add_lora
from anna.training.results import save_encoder
from tests.conftest import tiny_student

TEXTS = ["the capital of France", "x", "a very long text about rivers and mountains " * 20]


def adapted(encoder: Encoder) -> Encoder:
    """Give the encoder a LoRA adapter that does something."""
    add_lora(encoder, rank=4, alpha=8, dropout=0.0)
    with torch.no_grad():
        for name, parameter in encoder.backbone.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return encoder.eval()


@pytest.mark.parametrize("is_adapted", [False, True])
def test_export_gives_the_vectors_of_the_trained_encoder(
    is_adapted: bool, tiny_encoder: Encoder, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    encoder = adapted(tiny_encoder) if is_adapted else tiny_encoder
    weights = dict(encoder.backbone.named_parameters())
    state = {name: weight for name, weight in weights.items() if weight.requires_grad or not is_adapted}
    save_encoder(tmp_path / "encoder", encoder, state)
    loaded = export.load_trained(tmp_path / "encoder", tiny_student(tiny_checkpoint))
    texts = {"": TEXTS, "Capitals": TEXTS[:2], "Capitals+examples": TEXTS[:2], "Similar": TEXTS}
    expected = export.embed(loaded, texts)
    np.testing.assert_allclose(expected[""], export.embed(encoder, {"": TEXTS})[""], atol=1e-6)
    export.export(loaded, tmp_path / "out")
    assert export.compare(expected, texts, tmp_path / "out", 0.9999) > 0.99999
    again = Encoder.load(tmp_path / "out")
    np.testing.assert_allclose(export.embed(again, texts)["Similar"], expected["Similar"], atol=1e-6)


def test_exported_tokenizer_appends_eos_by_itself_and_prompts_are_named(tiny_encoder: Encoder, tmp_path: Path) -> None:
    export.export(tiny_encoder, tmp_path / "out")
    model = SentenceTransformer(str(tmp_path / "out"), device="cpu", local_files_only=True)
    ids = model.tokenizer(["Paris", "one two three " * 90], truncation=True, max_length=20)["input_ids"]
    assert [row[-1] for row in ids] == [model.tokenizer.eos_token_id] * 2
    assert model.prompts["Capitals"] == "Instruct: given a question retrieve\nQuery: "
    assert model.prompts["Similar+examples"] == (
        "Instruct: similar sentences\nQuery: who wrote it\nResponse: this book about rivers\n\n"
        "Instruct: similar sentences\nQuery: "
    )


def test_mteb_finds_the_prompts_of_queries_and_documents(tiny_encoder: Encoder) -> None:
    tasks = {"ArguAna": tiny_encoder.config.tasks["Capitals"], "STS12": tiny_encoder.config.tasks["Similar"]}
    named = export.named_prompts(tiny_encoder.config.model_copy(update={"tasks": tasks}))

    def found(task: str, side: PromptType) -> str:
        return named[str(get_prompt_name(named, mteb.get_task(task).metadata, side))]

    for task in tasks:
        assert found(task, PromptType.query) == named[task]
    assert found("ArguAna", PromptType.document) == ""
    assert found("STS12", PromptType.document) == named["STS12"]


def test_an_export_that_differs_is_refused(tiny_encoder: Encoder, tmp_path: Path) -> None:
    texts = {"": TEXTS}
    expected = export.embed(tiny_encoder, texts)
    with torch.no_grad():
        tiny_encoder.backbone.layers[0].mlp.down_proj.weight.mul_(-1)
    export.export(tiny_encoder, tmp_path / "out")
    with pytest.raises(InputError, match=r"has cosine .* with the training encoder, expected > 0.9999"):
        export.compare(expected, texts, tmp_path / "out", 0.9999)


def test_texts_to_compare_are_of_tasks_with_a_prompt(tiny_config: EncoderConfig) -> None:
    column = {"task": ["Capitals", "Promptless"] * 10, "text": [f"query {n}" for n in range(20)]}
    corpus = pa.table({"text": [f"doc {n}" for n in range(30)]})
    got = export.samples(pa.table(column), corpus, 12, tiny_config)
    assert len(got[""]) == 6
    assert sorted(got["Capitals"] + got["Capitals+examples"]) == [f"query {n}" for n in (0, 10, 2, 4, 6, 8)]


def test_plain_sentence_transformers_can_cut_the_vectors(tiny_encoder: Encoder, tmp_path: Path) -> None:
    export.export(tiny_encoder, tmp_path / "out")
    whole, cut = (
        SentenceTransformer(str(tmp_path / "out"), device="cpu", local_files_only=True, truncate_dim=dims).encode(TEXTS)
        for dims in (None, 8)
    )
    assert cut.shape == (len(TEXTS), 8)
    np.testing.assert_allclose(cut, whole[:, :8], atol=1e-6)
