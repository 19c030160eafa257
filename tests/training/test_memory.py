"""A run that cannot fit is refused before it loads anything, and none other."""

import json
from pathlib import Path

import pytest

from anna.errors import InputError
from anna.footprint import GIB
from anna.training import memory, results, run
from anna.training.memory import check_memory
from tests.conftest import tiny_student
from tests.training.worker import recipe


def needed(checkpoint: Path) -> int:
    """Return weights, gradients, two moments and a copy of the tiny model's two layers, at ZeRO 1 on one rank."""
    vocabulary: int = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64 + 2 * 32
    return 4 * (vocabulary * 32 + 2 * layer + 32) * (1 + 1 + 3)


def test_a_byte_decides(tiny_checkpoint: Path) -> None:
    student, plain = tiny_student(tiny_checkpoint), recipe(1, "full").model_copy(update={"freeze_token_table": False})
    check_memory(student, plain, ranks=1, memory=needed(tiny_checkpoint))
    with pytest.raises(InputError) as refused:
        check_memory(student, plain, ranks=1, memory=needed(tiny_checkpoint) - 1)
    assert str(refused.value).startswith(
        f"student.model {tiny_checkpoint} with train.method full at train.zero_stage 1 "
    )
    assert "set train.method: lora" in str(refused.value)


def test_a_last_layer_that_comes_first_needs_the_whole_model_on_every_rank(tiny_checkpoint: Path) -> None:
    sharded = recipe(3, "full").model_copy(update={"freeze_token_table": False})
    written = tiny_student(tiny_checkpoint, last_layer="weighted_mean")
    whole = needed(tiny_checkpoint) // 5
    check_memory(tiny_student(tiny_checkpoint), sharded, ranks=8, memory=whole - 1)
    check_memory(written, sharded, ranks=8, memory=whole)
    with pytest.raises(InputError, match=r"needs the whole model in float32 .*set student.last_layer to pretrained"):
        check_memory(written, sharded, ranks=8, memory=whole - 1)


def test_adapters_are_proposed_together_with_what_they_need(tiny_checkpoint: Path) -> None:
    """`anna check` refuses an adapter beside a last layer that begins anew."""
    plain = recipe(1, "full").model_copy(update={"freeze_token_table": False})
    written = tiny_student(tiny_checkpoint, last_layer="weighted_mean")
    with pytest.raises(InputError) as refused:
        check_memory(written, plain, ranks=1, memory=needed(tiny_checkpoint) - 1)
    assert "set train.method: lora, with student.last_layer: pretrained and train.last_layer_first: null (" in str(
        refused.value
    )


def test_sharding_is_the_remedy_on_several_ranks(tiny_checkpoint: Path) -> None:
    student, plain = tiny_student(tiny_checkpoint), recipe(0, "full").model_copy(update={"freeze_token_table": False})
    with pytest.raises(InputError, match=r"set train\.zero_stage: 3 \(0\.0 GiB\); see"):
        check_memory(student, plain, ranks=8, memory=needed(tiny_checkpoint) / 5)


def test_nothing_fits_into_nothing(tiny_checkpoint: Path) -> None:
    with pytest.raises(InputError, match="use more GPUs, or a smaller student"):
        check_memory(tiny_student(tiny_checkpoint), recipe(1, "lora"), ranks=1, memory=1)


def test_a_form_that_is_not_known_is_not_refused(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "known_shape", lambda _: None)
    check_memory(tiny_student(tiny_checkpoint), recipe(1, "full"), ranks=1, memory=1)


@pytest.mark.parametrize("name", ["LOCAL_WORLD_SIZE", "LOCAL_SIZE"], ids=["torchrun", "deepspeed"])
def test_ranks_of_one_machine_share_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = memory.available_memory(1)
    assert alone > GIB / 4
    assert memory.available_memory(2) == alone / 2
    monkeypatch.setenv(name, "4")
    assert memory.available_memory(16) == alone / 4


@pytest.mark.usefixtures("alone")
def test_training_asks_before_it_loads(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda _: 1.0)
    monkeypatch.setattr(run, "new_encoder", lambda *_: pytest.fail("the model was loaded"))
    nothing = results.Outputs(*(tmp_path / name for name in "abcd"))
    with pytest.raises(InputError, match="needs at least"):
        run.train_encoder(
            data=None,  # type: ignore[arg-type]
            student=tiny_student(tiny_checkpoint),
            prompts=None,  # type: ignore[arg-type]
            recipe=recipe(1, "full"),
            outputs=nothing,
            scratch=run.Scratch(tmp_path, tmp_path),
        )
