"""The exported folder is standard: other programs load it, without this project and without running code from it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from anna.modeling import export
from anna.modeling.encoder import Encoder

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
    modules = json.loads((tmp_path / "out" / "modules.json").read_text())
    assert all(module["type"].startswith("sentence_transformers.") for module in modules)
    pooling = json.loads((tmp_path / "out" / "1_Pooling" / "config.json").read_text())
    assert pooling.get("pooling_mode") == "lasttoken" or pooling.get("pooling_mode_lasttoken") is True
