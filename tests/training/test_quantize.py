"""4-bit matrices below LoRA: refused without bitsandbytes; with it, trained and exported as what was trained."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from anna.errors import InputError
from anna.modeling import checkpoint, export
from anna.modeling.student import load_student
from anna.training import engine as engines
from anna.training import loop, results, run
from anna.training.identity import digest_weights
from anna.training.recipe import TrainParams
from tests.conftest import tiny_student
from tests.training.worker import prompts, recipe, toy_groups, toy_texts

HAS_BITSANDBYTES = importlib.util.find_spec("bitsandbytes") is not None


def test_without_bitsandbytes_it_is_refused(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"train.quantize is nf4, but bitsandbytes is not installed; run: pip install"):
        load_student(tiny_checkpoint, 2, quantize="nf4")


@pytest.mark.skipif(not HAS_BITSANDBYTES, reason="needs bitsandbytes")
@pytest.mark.parametrize("zero_stage", [0, 2])
def test_a_trained_adapter_is_exported_onto_the_matrices_it_was_trained_on(
    zero_stage: int, tiny_checkpoint: Path, tmp_path: Path, alone: None
) -> None:
    plain = recipe(zero_stage, "lora").model_dump() | {"quantize": "nf4", "max_steps": 3, "learning_rate": 0.01}
    chosen, student = TrainParams.model_validate(plain), tiny_student(tiny_checkpoint)
    encoder = run.new_encoder(student, prompts(), {}, chosen)
    matrix = encoder.backbone.base_model.model.layers[0].mlp.up_proj.base_layer.weight
    assert (matrix.dtype, matrix.numel()) == (torch.uint8, 32 * 64 // 2)
    assert len(digest_weights(encoder.backbone.state_dict())) == 32  # as a run is named by
    before, packed = engines.weights(encoder.backbone, is_trained=True), matrix.clone()
    engine = engines.start_engine(encoder, chosen)
    loop.train(engine, encoder, run.plan(toy_groups(), chosen), toy_texts(), chosen)
    after = engines.weights(encoder.backbone, is_trained=True)
    assert engines.check_moved(before, after, 2) > 0.001
    assert torch.equal(matrix, packed)
    results.save_encoder(tmp_path / "encoder", encoder, after)
    loaded, texts = export.load_trained(tmp_path / "encoder", student), {"": ["the capital of France", "x"]}
    expected = export.embed(encoder.eval(), texts)
    np.testing.assert_allclose(export.embed(loaded, texts)[""], expected[""], atol=1e-5)
    export.export(loaded, tmp_path / "out")
    assert export.compare(expected, texts, tmp_path / "out", 0.9999) > 0.99999
