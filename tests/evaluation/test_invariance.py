"""Batch size, packing and the cached prompt change no score; the reference computes each text alone, whole."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from mteb.types import PromptType

from anna.evaluation import contenders, run
from anna.evaluation.contenders import Contender
from anna.evaluation.encoding import EncodeSettings
from anna.evaluation.mteb_model import CachedEmbedder, PromptedModel
from anna.evaluation.tasks import held_out_tasks
from anna.modeling.encoder import Encoder
from anna.processes import Processes
from tests.conftest import as_loaded

SETTINGS = EncodeSettings(max_tokens=24, tokens_per_batch=4096, dtype="float32")
LARGEST_CHANGE = 1e-3


def scores(compared, tables, folder):
    """Return each score by task and mode, on all seven types."""
    result = run.evaluate_all([compared], held_out_tasks(tables), folder / "store", folder / "results")
    assert len(result) == 14
    return {(score.task, score.mode): score.value for score in result}


def one_by_one(folder) -> Contender:
    """Return the model as plain transformers runs it: one text at a time, prompt included, nothing cached or packed."""
    encoder = Encoder.load(folder)
    plain = as_loaded(encoder.backbone)

    @torch.no_grad()
    def embed(texts, prefix):
        rows = encoder.tokenize(texts, prefix=prefix, max_tokens=SETTINGS.max_tokens)
        last = [plain(input_ids=torch.tensor([row])).last_hidden_state[0, -1] for row in rows]
        return torch.nn.functional.normalize(torch.stack(last), dim=-1).numpy().astype(np.float32)

    def prefix_with(count):
        return lambda task, side: (
            encoder.config.prefix(task, count)
            if side != PromptType.document or encoder.config.task(task).symmetric
            else ""
        )

    embedder = CachedEmbedder(embed)
    shots = {"zero_shot": 0, "with_examples": 1}
    models = {mode: PromptedModel("plain", mode, embedder, prefix_with(count)) for mode, count in shots.items()}
    return Contender("plain", models, lambda task, mode: {"mode": mode}, None, embedder)


@pytest.mark.parametrize("tokens_per_batch", [1, 60, 4096])
def test_batch_size_packing_and_cached_prompts_change_no_score(tmp_path, exported, tables, tokens_per_batch):
    expected = scores(one_by_one(exported), tables, tmp_path / "plain")
    own = contenders.student(exported, replace(SETTINGS, tokens_per_batch=tokens_per_batch))
    got = scores(own, tables, tmp_path / "own")
    assert {key: value for key, value in got.items() if abs(value - expected[key]) > LARGEST_CHANGE} == {}
    assert len(set(got.values())) > 5, "scores that are all alike would hide a difference"


@pytest.mark.slow
def test_a_model_in_two_processes_has_the_scores_of_one_to_the_last_bit(tmp_path, exported, tables):
    settings = replace(SETTINGS, tokens_per_batch=60)
    expected = scores(contenders.student(exported, settings), tables, tmp_path / "one")
    with Processes(2) as where:
        got = scores(contenders.student(exported, settings, where), tables, tmp_path / "two")
    assert got == expected
