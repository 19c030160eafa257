"""Where a model's sizes come from."""

import json
from pathlib import Path

import pytest

from anna.errors import InputError
from anna.known_shapes import KNOWN, find_shape, known_shape
from anna.origins import HUB_DIR_VARIABLE, INPUTS_DIR, FilesOrigin, HubOrigin, WheelOrigin, dequantised_name, sha256

CONFIG = {
    "model_type": "mistral",
    "vocab_size": 10,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


@pytest.fixture(autouse=True)
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv(HUB_DIR_VARIABLE, raising=False)


def hub(repo: str) -> HubOrigin:
    return HubOrigin(kind="hub", repo=repo, revision="a" * 40)


def write(folder: Path, **changes: object) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | changes), encoding="utf-8")


@pytest.mark.parametrize(
    ("repo", "name"),
    [
        ("mistralai/Mistral-7B-v0.1", "mistral-7b"),
        ("Qwen/Qwen3-Embedding-0.6B", "qwen3-embedding-0.6b"),
        ("Qwen/Qwen3-0.6B", "qwen3-0.6b"),
        ("BAAI/bge-reranker-v2-m3", "bge-reranker-v2-m3"),
    ],
)
def test_a_model_that_is_not_here_is_looked_up_by_name(repo: str, name: str) -> None:
    assert find_shape(hub(repo), "student.model") == KNOWN[name]
    assert known_shape(hub(repo)) == KNOWN[name]


def test_a_file_that_is_still_to_be_unpacked_is_looked_up_by_name_too(tmp_path: Path) -> None:
    path = tmp_path / "SmolLM2-135M.gguf"
    path.write_bytes(b"GGUF")
    assert find_shape(FilesOrigin(kind="files", path=path), "student.model") == KNOWN["smollm2-135m"]


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_broken_configuration_is_not_deleted(tmp_path: Path, content: str) -> None:
    write(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(content)
    origin = FilesOrigin(kind="files", path=tmp_path / "model")
    for read in (known_shape, lambda origin: find_shape(origin, "student.model")):
        with pytest.raises(InputError, match=r"model/config\.json .*; put the model's own config\.json there$"):
            read(origin)


def test_a_model_that_nobody_knows_is_refused_with_its_place() -> None:
    with pytest.raises(InputError, match=r"^student\.model: acme/brain@aaaaaaaaaaaa is not on this machine"):
        find_shape(hub("acme/brain"), "student.model")


@pytest.mark.parametrize("place", ["cache", "mirror"])
def test_what_is_here_counts_more_than_the_name(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv(HUB_DIR_VARIABLE, str(tmp_path / "mirror"))
    cache = tmp_path / "hf/hub/models--mistralai--Mistral-7B-v0.1/snapshots" / ("a" * 40)
    write(cache if place == "cache" else tmp_path / "mirror/models/mistralai/Mistral-7B-v0.1")
    assert find_shape(hub("mistralai/Mistral-7B-v0.1"), "student.model").hidden == 8


def test_a_gguf_file_is_known_by_what_it_was_dequantised_to(tmp_path: Path) -> None:
    origin = WheelOrigin(kind="wheel", package="p", version="1", sha256="b" * 64, path="m/Tiny.Q4_1.gguf")
    file = tmp_path / INPUTS_DIR / f"p-1-{'b' * 12}/m/Tiny.Q4_1.gguf"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    write(tmp_path / INPUTS_DIR / "Tiny.Q4_1-0123456789ab", hidden_size=99)  # of another file of that name
    write(tmp_path / INPUTS_DIR / f"Tiny.Q4_1-{sha256(file)[:12]}-transformers-0.1", hidden_size=99)  # by another
    assert known_shape(origin) is None
    write(tmp_path / INPUTS_DIR / dequantised_name(file))
    shape = known_shape(origin)
    assert shape is not None
    assert shape.hidden == 8
    assert find_shape(origin, "student.model") == shape


def test_an_unknown_form_is_no_shape_and_an_error_with_its_file() -> None:
    write(Path("model"), model_type="mamba")
    origin = FilesOrigin(kind="files", path=Path("model"))
    assert known_shape(origin) is None
    with pytest.raises(InputError, match=r"^model/config\.json: no form of transformer is known with 'mamba'"):
        find_shape(origin, "student.model")
