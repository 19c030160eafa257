"""vLLM serves the exported folder as it is: the same vectors, bare and in every prompt."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anna.modeling import export
from anna.modeling.encoder import Encoder
from anna.modeling.encoder_config import EncoderConfig
from anna.modeling.student import load_student
from tests.modeling.test_families import SIZES, save

VLLM = Path(__file__).parents[2] / ".venv-vllm" / "bin" / "python"

TEXTS = ["the capital of France", "x", "a very long text about rivers and mountains " * 3]

SCRIPT = """
import sys

import numpy as np
from vllm import LLM

if __name__ == "__main__":
    folder, texts = sys.argv[1], sys.argv[2:]
    server = LLM(folder, runner="pooling", dtype="float32", enforce_eager=True)
    np.save("vectors.npy", [found.outputs.embedding for found in server.embed(texts)])
"""


@pytest.mark.slow
@pytest.mark.skipif(not VLLM.is_file(), reason="vLLM is not installed; `make vllm` installs it")
@pytest.mark.parametrize(
    ("family", "sizes", "pooling"),
    [
        ("mistral", {"sliding_window": 16}, "last_token"),
        ("qwen3", {"tie_word_embeddings": True}, "last_token"),
        ("llama", {}, "mean"),
    ],
)
def test_vllm_gives_the_vectors_that_were_trained(
    family: str, sizes: dict[str, Any], pooling: str, tiny_checkpoint: Path, tiny_config: EncoderConfig, tmp_path: Path
) -> None:
    wide = {"hidden_size": 64, "head_dim": 64, "num_attention_heads": 2, "num_key_value_heads": 1}  # it has no narrower
    folder = save(tmp_path / "model", family, tiny_checkpoint, **SIZES | wide | sizes)
    encoder = Encoder(*load_student(folder, 2), tiny_config.model_copy(update={"pooling": pooling}), torch.float32)
    export.export(encoder.eval(), tmp_path / "out")
    prompts = json.loads((tmp_path / "out/config_sentence_transformers.json").read_text())["prompts"]
    prompts = {"": "", **prompts}
    expected = export.embed(encoder, dict.fromkeys(prompts, TEXTS))
    script = tmp_path / "serve.py"
    script.write_text(SCRIPT)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [
            str(VLLM),
            script.name,
            str(tmp_path / "out"),
            *(prompt + text for prompt in prompts.values() for text in TEXTS),
        ],
        cwd=tmp_path,
        env={**environment, "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    got = np.load(tmp_path / "vectors.npy").reshape(len(prompts), len(TEXTS), -1)
    for name, vectors in zip(prompts, got, strict=True):
        np.testing.assert_allclose(vectors, expected[name], atol=1e-5, err_msg=name)
