"""The sample that the last layer starts from."""

from pathlib import Path

import pytest
import torch

from anna.errors import InputError
from anna.modeling import readout
from anna.modeling.encoder import Encoder
from anna.modeling.readout_fit import Reading
from anna.training import last_layer, run
from anna.training.batches import Batch, Group
from anna.training.last_layer import start_as_mean
from anna.training.recipe import TrainParams
from anna.training.results import Outputs
from tests.conftest import tiny_student
from tests.training.worker import recipe, toy_groups, toy_texts


def start(encoder: Encoder, groups: list[Group], chosen: TrainParams) -> None:
    start_as_mean(encoder, groups, run.plan(groups, chosen), toy_texts(), chosen)


def test_the_sample_is_queries_in_their_prompts_and_positives(
    tiny_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[list[Reading]]] = []
    monkeypatch.setattr(readout, "start", lambda _, texts, docs, others: seen.append([texts, others]))
    start(tiny_encoder, toy_groups(), recipe(1, "full"))
    ((texts, others),) = seen
    assert not any(text.has_examples for text in texts)
    decoded = {tiny_encoder.tokenizer.decode(text.tokens[text.num_prompt : -1]).strip() for text in texts}
    assert decoded >= set(toy_texts().queries.values())
    symmetric = [text for text in texts if not text.is_query and text.num_prompt]
    assert len(symmetric) == sum(group.task == "Similar" for group in toy_groups())
    for number, text in enumerate(others):  # a query and its positive with examples, and the positive twice without
        assert text.has_examples == (number % 4 < 2)
        prompt = tiny_encoder.tokenizer.decode(text.tokens[: text.num_prompt])
        assert (prompt.count("Instruct:"), prompt.count("Response:")) in (
            [(2, 1), (3, 2)] if text.has_examples else [(1, 0)] if number % 4 == 2 else [(0, 0)]
        )
    assert max(text.num_own for text in others) > recipe(1, "full").doc_tokens >= max(text.num_own for text in texts)


def test_without_examples_in_training_none_are_read(tiny_encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[Reading]] = []
    monkeypatch.setattr(readout, "start", lambda _, texts, docs, others: seen.append(others))
    zero_shot = recipe(1, "full").model_copy(update={"max_examples": 0})
    start(tiny_encoder, toy_groups(), zero_shot)
    assert seen == [[]]


def test_examples_are_read_with_groups_from_all_over_a_batch(
    tiny_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[Reading]] = []
    monkeypatch.setattr(readout, "start", lambda _, texts, docs, others: seen.append(others))
    groups = [group for group in toy_groups() if group.task == "Capitals"]
    members, shown = groups[:13], groups[13:]
    batch = Batch("Capitals", tuple(members), tuple(shown))
    start_as_mean(tiny_encoder, groups, [batch], toy_texts(), recipe(1, "full"))
    queries = seen[0][::4]
    decoded = [tiny_encoder.tokenizer.decode(text.tokens[text.num_prompt : -1]).strip() for text in queries]
    assert decoded == [toy_texts().queries[members[place].query_id] for place in (0, 3, 6, 9)]


def test_an_adapter_is_refused_before_anything_is_read(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"last_layer is weighted_mean, which needs train\.method full"):
        run.train_encoder(
            data=None,  # type: ignore[arg-type]
            student=tiny_student(tiny_checkpoint, last_layer="weighted_mean"),
            prompts=None,  # type: ignore[arg-type]
            recipe=recipe(1, "lora"),
            outputs=Outputs(*(tmp_path / name for name in "abcd")),
            scratch=run.Scratch(tmp_path, tmp_path),
        )


def test_a_single_group_is_refused(tiny_encoder: Encoder) -> None:
    with pytest.raises(InputError, match="there is a single training group"):
        start(tiny_encoder, toy_groups()[:1], recipe(1, "full"))


def test_the_sample_is_bounded_in_bytes(tiny_encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[Reading]] = []
    monkeypatch.setattr(readout, "start", lambda _, texts, docs, others: seen.append(texts))
    zero_shot = recipe(1, "full").model_copy(update={"max_examples": 0})
    for most in (last_layer.SAMPLE_BYTES, 100 * 8 * tiny_encoder.backbone.config.hidden_size):
        monkeypatch.setattr(last_layer, "SAMPLE_BYTES", most)
        start(tiny_encoder, toy_groups(), zero_shot)
    whole, part = seen
    assert part == whole[: len(part)]
    assert sum(len(text.tokens) for text in part) <= 100 < sum(len(text.tokens) for text in whole[: len(part) + 1])


def test_it_changes_the_last_layer_and_the_final_norm_alone(tiny_encoder: Encoder) -> None:
    tiny_encoder.backbone.norm.weight.data.fill_(2.0)
    before = {name: weight.clone() for name, weight in tiny_encoder.backbone.state_dict().items()}
    start(tiny_encoder, toy_groups(), recipe(1, "full"))
    after = tiny_encoder.backbone.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    parts = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.down_proj")
    assert changed == {f"layers.1.{part}.weight" for part in parts} | {"norm.weight"}
