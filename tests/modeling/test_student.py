"""Checkpoints become students: the same function, fewer layers, EOS at the end."""

from collections import Counter
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, MistralForCausalLM

from anna.errors import InputError
from anna.modeling.checkpoint import load_causal_lm
from anna.modeling.student import append_eos, load_student, recompute

IDS = torch.tensor([[5, 9, 30, 77, 12, 1]])


def test_first_layers_give_the_hidden_states_of_those_layers(tiny_checkpoint: Path) -> None:
    whole, _ = load_causal_lm(tiny_checkpoint)
    student, _ = load_student(tiny_checkpoint, 2)
    with torch.no_grad():
        states = whole(IDS, output_hidden_states=True).hidden_states
        got = student(input_ids=IDS).last_hidden_state
    torch.testing.assert_close(got, student.norm(states[2]))


def test_more_layers_than_there_are_is_refused(tiny_checkpoint: Path) -> None:
    with pytest.raises(InputError, match=r"student.layers is 9, but model has 3; choose at most 3"):
        load_student(tiny_checkpoint, 9)


def test_eos_has_a_gradient_also_where_the_model_pads_with_it(tiny_checkpoint: Path) -> None:
    student, tokenizer = load_student(tiny_checkpoint, None)
    assert student.config.pad_token_id == tokenizer.eos_token_id == IDS[0, -1], "what the test is about"
    table = student.double().get_input_embeddings().weight

    def value() -> torch.Tensor:
        return student(input_ids=IDS).last_hidden_state[0, -1].square().cumsum(0).sum()

    (gradient,) = torch.autograd.grad(value(), table)
    size = gradient[IDS[0, -1]].norm()
    row, values = table.data[IDS[0, -1]].clone(), []
    for sign in (1, -1):
        table.data[IDS[0, -1]] = row + sign * 1e-5 * gradient[IDS[0, -1]] / size
        values.append(value().item())
    assert (values[0] - values[1]) / 2e-5 == pytest.approx(size.item(), rel=1e-3)  # norms are taken in float32


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_first_layers_compute_their_activations_again(tiny_checkpoint: Path, layers: int) -> None:
    student, _ = load_student(tiny_checkpoint, None)
    recompute(student, layers)
    calls = Counter[int]()
    for layer in student.layers:
        layer.mlp.register_forward_pre_hook(lambda *_, number=layer.self_attn.layer_idx: calls.update([number]))
    student.train()(input_ids=IDS).last_hidden_state.sum().backward()
    assert calls == {number: 1 + (number < layers) for number in range(3)}


def test_a_llama_checkpoint_becomes_a_mistral_with_the_same_logits(tiny_checkpoint: Path, tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    torch.manual_seed(1)
    llama = LlamaForCausalLM(config).eval()
    llama.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_checkpoint).save_pretrained(tmp_path)
    mistral, _ = load_causal_lm(tmp_path)
    assert isinstance(mistral, MistralForCausalLM)
    with torch.no_grad():
        assert torch.equal(mistral(IDS).logits, llama(IDS).logits)
    mistral.save_pretrained(tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again").eval()
    with torch.no_grad():
        assert torch.equal(again(IDS).logits, llama(IDS).logits)


def test_the_saved_tokenizer_appends_eos_and_has_no_chat_template(tiny_checkpoint: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    assert tokenizer("Paris")["input_ids"][-1] != tokenizer.eos_token_id
    append_eos(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.chat_template is None
    for limit in (2, 3, 50):
        ids = again(["Paris", "rivers and mountains and music"], truncation=True, max_length=limit)["input_ids"]
        assert all(row[-1] == again.eos_token_id and len(row) <= limit for row in ids)


def test_a_tokenizer_that_begins_with_bos_keeps_it(tiny_checkpoint: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    append_eos(tokenizer)
    assert tokenizer("Paris")["input_ids"][0] == 0
    assert tokenizer("Paris")["input_ids"][-1] == 1


def test_a_folder_without_a_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no model of safetensors") as raised:
        load_causal_lm(tmp_path)
    assert "\n" not in str(raised.value)


def test_weights_can_be_loaded_rounded(tiny_checkpoint: Path) -> None:
    whole, rounded = (
        load_student(tiny_checkpoint, 2, weight_dtype=kind)[0] for kind in (torch.float32, torch.bfloat16)
    )
    for one, other in zip(whole.parameters(), rounded.parameters(), strict=True):
        assert other.dtype == torch.bfloat16
        assert torch.equal(one.bfloat16(), other)


def test_a_gguf_file_of_another_family_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _save_qwen2(tmp_path / "qwen2.gguf")
    with pytest.raises(
        InputError, match=r"qwen2\.gguf is a GGUF file of a qwen2, but only those of a Llama can be read"
    ):
        load_causal_lm(tmp_path / "qwen2.gguf")


def _save_qwen2(path: Path) -> None:
    """Write a random one-layer Qwen2 with a vocabulary of four."""
    hidden, ffn, heads, kv, tokens = 16, 32, 4, 2, ["a", "b", "ab", "<|endoftext|>"]
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_context_length(64)
    writer.add_embedding_length(hidden)
    writer.add_block_count(1)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([1, 1, 1, 3])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(3)
    writer.add_eos_token_id(3)
    rng, size = np.random.default_rng(0), hidden // heads * kv
    matrices = {"attn_q": (hidden, hidden), "attn_k": (size, hidden), "attn_v": (size, hidden)}
    matrices |= {"attn_output": (hidden, hidden), "ffn_gate": (ffn, hidden), "ffn_up": (ffn, hidden)}
    matrices |= {"ffn_down": (hidden, ffn)}
    shapes: dict[str, tuple[int, ...]] = {f"blk.0.{name}.weight": shape for name, shape in matrices.items()}
    shapes |= {f"blk.0.{name}.bias": matrices[name][:1] for name in ("attn_q", "attn_k", "attn_v")}
    shapes |= {f"blk.0.{name}.weight": (hidden,) for name in ("attn_norm", "ffn_norm")}
    shapes |= {"token_embd.weight": (len(tokens), hidden), "output.weight": (len(tokens), hidden)}
    shapes |= {"output_norm.weight": (hidden,)}
    for name, shape in shapes.items():
        writer.add_tensor(name, rng.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
