"""The exported folder is standard: other programs load it, without this project and without running code from it."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from anna.modeling import export
from anna.modeling.encoder import Encoder
from anna.modeling.encoder_config import EncoderConfig
from tests.conftest import encoder_with

TEXTS = ["the capital of France", "rivers and mountains", "x"]

SCRIPT = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("anna", "stages"):
            raise ImportError(f"{name} must not be needed")

sys.meta_path.insert(0, Refuse())
import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoConfig, AutoModel, AutoTokenizer

folder, texts = sys.argv[1], sys.argv[2:]
options = {"local_files_only": True, "trust_remote_code": False}
model = AutoModel.from_pretrained(folder, dtype=torch.float32, **options).eval()
assert type(model).__module__.startswith("transformers.models."), type(model)
assert [type(model).__name__] == AutoConfig.from_pretrained(folder, **options).architectures
tokenizer = AutoTokenizer.from_pretrained(folder, **options)
rows = []
for text in texts:
    ids = tokenizer(text, return_tensors="pt")
    assert ids["input_ids"][0, -1] == tokenizer.eos_token_id
    with torch.no_grad():
        last = model(**ids).last_hidden_state[0, -1]
    rows.append(torch.nn.functional.normalize(last, dim=0).numpy())
plain = SentenceTransformer(folder, device="cpu", **options)
prompted = plain.encode(texts, prompt_name="Capitals")
np.savez("vectors.npz", auto=np.stack(rows), sentences=plain.encode(texts), prompted=prompted)
assert "anna" not in sys.modules
"""


@pytest.fixture(scope="module")
def clean_environment() -> dict[str, str]:
    """No network, and nothing of ours on the path."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


def test_transformers_and_sentence_transformers_load_it_alone(
    tiny_encoder: Encoder, tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    export.export(tiny_encoder, tmp_path / "out")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "out"), *TEXTS],
        cwd=tmp_path,
        env=clean_environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    got = np.load(tmp_path / "vectors.npz")
    ours = export.embed(tiny_encoder, {"": TEXTS, "Capitals": TEXTS})
    np.testing.assert_allclose(got["auto"], ours[""], atol=1e-5)
    np.testing.assert_allclose(got["sentences"], ours[""], atol=1e-5)
    np.testing.assert_allclose(got["prompted"], ours["Capitals"], atol=1e-5)


def test_it_names_a_standard_architecture_and_holds_no_code(tiny_encoder: Encoder, tmp_path: Path) -> None:
    export.export(tiny_encoder, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["MistralModel"]
    assert config["model_type"] == "mistral"
    assert "auto_map" not in config
    suffixes = {path.suffix for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert suffixes == {".json", ".safetensors"}


def read(path: Path) -> Any:
    """The JSON value of a file."""
    return json.loads(path.read_text(encoding="utf-8"))


def test_older_sentence_transformers_and_servers_know_every_name_in_it(tiny_encoder: Encoder, tmp_path: Path) -> None:
    export.export(tiny_encoder, tmp_path)
    assert read(tmp_path / "modules.json") == [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    assert read(tmp_path / "sentence_bert_config.json") == {"max_seq_length": 256, "do_lower_case": False}
    assert read(tmp_path / "1_Pooling/config.json") == {
        "word_embedding_dimension": 32,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": False,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
        "pooling_mode_weightedmean_tokens": False,
        "pooling_mode_lasttoken": True,
        "include_prompt": True,
    }
    described = read(tmp_path / "config_sentence_transformers.json")
    assert set(described["prompts"]) == {
        "Capitals",
        "Capitals+examples",
        "Capitals-document",
        "Similar",
        "Similar+examples",
    }
    assert {name: value for name, value in described.items() if name != "prompts"} == {
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
    }
    config = read(tmp_path / "config.json")
    assert (config["torch_dtype"], config["rope_theta"]) == ("float32", 10_000.0)


def test_mean_pooling_is_named_too(tiny_checkpoint: Path, tiny_config: EncoderConfig, tmp_path: Path) -> None:
    export.export(encoder_with(tiny_checkpoint, tiny_config, pooling="mean"), tmp_path)
    pooling = read(tmp_path / "1_Pooling/config.json")
    assert [name for name, value in pooling.items() if value is True] == ["pooling_mode_mean_tokens", "include_prompt"]


def test_what_training_and_export_did_with_the_tokenizer_is_not_in_it(tiny_encoder: Encoder, tmp_path: Path) -> None:
    tiny_encoder.tokenizer(TEXTS, truncation=True, max_length=4, padding=True)
    tiny_encoder.tokenizer.save_pretrained(tmp_path / "used")
    tiny_encoder.tokenizer = AutoTokenizer.from_pretrained(tmp_path / "used", local_files_only=True)
    export.export(tiny_encoder, tmp_path / "out")
    assert read(tmp_path / "out/tokenizer_config.json") == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 256,
        "padding_side": "right",
        "truncation_side": "right",
        "clean_up_tokenization_spaces": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "</s>",
    }
    long = "river " * 400
    alone = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json"))
    by_class = AutoTokenizer.from_pretrained(tmp_path / "out", local_files_only=True)
    whole = alone.encode(long).ids
    assert len(whole) > 400
    assert whole[-1] == by_class.eos_token_id
    assert by_class(long)["input_ids"] == whole
    assert by_class(long, truncation=True)["input_ids"] == [*whole[:255], whole[-1]]
    assert [len(encoding.ids) for encoding in alone.encode_batch(["x", long])] == [
        len(alone.encode("x").ids),
        len(whole),
    ]


@pytest.mark.parametrize(
    ("rope", "expected"),
    [
        ({"rope_type": "default", "rope_theta": 1e5}, {"rope_theta": 1e5}),
        (
            {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
            {"rope_theta": 1e4, "partial_rotary_factor": 0.5},
        ),
        (
            {"rope_type": "linear", "rope_theta": 1e5, "factor": 2.0},
            {"rope_theta": 1e5, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        ),
        (
            {
                "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
            {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        ),
    ],
)
def test_positions_are_said_in_the_old_names_too(rope: dict[str, Any], expected: dict[str, Any]) -> None:
    config = {"model_type": "any", "rope_parameters": rope}
    before = copy.deepcopy(config)
    assert export.readable_by_all(config) == {**before, **expected}
    assert config == before


def test_families_that_count_their_keys_get_the_ones_that_they_count() -> None:
    lengths = {"short_factor": [1.5], "long_factor": [2.5]}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 64, **lengths}
    phi3 = {"model_type": "phi3", "original_max_position_embeddings": 64, "rope_parameters": rope}
    assert export.readable_by_all(phi3)["rope_scaling"] == {"type": "longrope", **lengths}
    kept = {"rope_type": "longrope", "original_max_position_embeddings": 64, **lengths}
    assert export.readable_by_all({"model_type": "llama", "rope_parameters": rope})["rope_scaling"] == kept


def test_a_config_without_rotation_stays_as_it_is() -> None:
    assert export.readable_by_all({"model_type": "any"}) == {"model_type": "any"}
