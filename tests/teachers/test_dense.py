"""The dense teacher: vectors are computed once, by content, and the model is loaded only if one is missing."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anna.engine import Local
from anna.errors import InputError
from anna.teachers import bi_encoder
from anna.teachers.dense import DenseParams, DenseTeacher
from tests.teachers.models import DENSE, save_bi_encoder

TEXTS = ["the river seine", "berlin is high", "the river seine", "mountains"]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bi_encoder(tmp_path_factory.mktemp("dense"))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Models that were loaded."""
    seen: list[Path] = []
    original = bi_encoder.load_model

    def load(path: Path, *limits: Any) -> Any:
        seen.append(path)
        return original(path, *limits)

    monkeypatch.setattr(bi_encoder, "load_model", load)
    return seen


def params(path: Path, **more: Any) -> DenseParams:
    origin = {"kind": "files", "path": path}
    return DenseParams.model_validate({"model": origin, **DENSE, **more})


def embed(settings: DenseParams, root: Path, texts: list[str], prompt: str = "") -> tuple[Any, dict[str, int]]:
    counts: Counter[str] = Counter()
    return DenseTeacher(settings, counts, Local(), root).embed(texts, prompt), dict(counts)


@pytest.mark.parametrize("key", ["query_prompt", "doc_prompt"])
def test_a_prompt_that_leaves_nothing_of_a_text_is_refused(model_path: Path, tmp_path: Path, key: str) -> None:
    with pytest.raises(InputError, match=rf"retrieve_dense.{key} takes 16 tokens, .* of 16 .*raise that, or shorten"):
        embed(params(model_path, **{key: "the river " * 7}), tmp_path, TEXTS)  # 14 and two special ones
    embed(params(model_path, **{key: "the river " * 6}), tmp_path, TEXTS)


def test_equal_texts_are_computed_once_and_stand_in_their_places(model_path: Path, tmp_path: Path) -> None:
    vectors, counts = embed(params(model_path), tmp_path, TEXTS)
    assert counts == {"reused": 0, "computed": 3}
    model = bi_encoder.load_model(model_path, 16)
    np.testing.assert_array_equal(vectors, bi_encoder.encode_batch(model, TEXTS, ""))


def test_the_second_time_no_model_is_loaded(model_path: Path, tmp_path: Path, loads: list[Path]) -> None:
    first, _ = embed(params(model_path), tmp_path, TEXTS)
    again, counts = embed(params(model_path), tmp_path, TEXTS[1:])
    np.testing.assert_array_equal(again, first[1:])
    assert counts == {"reused": 3, "computed": 0}
    assert len(loads) == 1


def test_a_new_text_costs_one_vector(model_path: Path, tmp_path: Path) -> None:
    embed(params(model_path), tmp_path, TEXTS)
    _, counts = embed(params(model_path), tmp_path, [*TEXTS, "capital of france"])
    assert counts == {"reused": 3, "computed": 1}


@pytest.mark.parametrize("change", [{"tokens_per_batch": 1}, {"depth": 9}, {"query_prompt": "query: "}])
def test_what_cannot_change_a_vector_reuses_it(model_path: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    first, _ = embed(params(model_path), tmp_path, TEXTS)
    again, counts = embed(params(model_path, **change), tmp_path, TEXTS)
    assert counts["computed"] == 0
    np.testing.assert_array_equal(again, first)


def test_another_prompt_length_or_model_is_computed_anew(model_path: Path, tmp_path: Path) -> None:
    embed(params(model_path), tmp_path, TEXTS)
    assert embed(params(model_path), tmp_path, TEXTS, "capital of ")[1] == {"reused": 0, "computed": 3}
    assert embed(params(model_path, max_tokens=32), tmp_path, TEXTS)[1] == {"reused": 0, "computed": 3}
    other = save_bi_encoder(tmp_path / "other")
    assert embed(params(other), tmp_path, TEXTS)[1] == {"reused": 3, "computed": 0}  # the same bytes elsewhere
    (other / "extra.json").write_text("{}")
    assert embed(params(other), tmp_path, TEXTS)[1] == {"reused": 0, "computed": 3}


def test_another_version_of_the_code_is_computed_anew(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(params(model_path), tmp_path, TEXTS)
    monkeypatch.setattr(bi_encoder, "VERSION", bi_encoder.VERSION + 1)
    assert embed(params(model_path), tmp_path, TEXTS)[1] == {"reused": 0, "computed": 3}


def test_lengths_that_batches_are_not_padded_to_are_refused(model_path: Path) -> None:
    with pytest.raises(ValueError, match="multiple of 16"):
        params(model_path, max_tokens=24)
