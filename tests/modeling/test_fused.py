"""Compiled layers: the same vectors and gradients, one set of kernels for all layers and rows."""

from functools import partial
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch._dynamo.utils import counters
from transformers import MistralConfig, MistralModel, Qwen3Config, Qwen3Model

from anna.modeling import attention
from anna.modeling.fused import fuse
from anna.modeling.packing import Packing, Text, pack

SIZES = {"vocab_size": 90, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 11, "head_dim": 16}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2}

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="is for GPUs, and has a backward pass there alone")


def decoder(kind: Any = MistralModel, config: Any = MistralConfig, **changes: Any) -> Any:
    torch.manual_seed(0)
    model = kind(config(**SIZES, **HEADS, attn_implementation="sdpa", **changes))
    attention.use_packing(model)
    attention.read_early(model)
    return model.train()


def rows() -> list[Packing]:
    torch.manual_seed(1)
    shapes = [(150, [3, 300, 40, 41, 1, 129]), (40, [7]), (0, [20, 9])]
    return [
        pack([Text(tokens(k), 0 if n else None) for k in lengths], [tokens(n)] if n else []) for n, lengths in shapes
    ]


def tokens(count: int) -> list[int]:
    return torch.randint(0, 90, (count,)).tolist()  # type: ignore[no-any-return]


def run(model: Any, packing: Packing) -> Tensor:
    inputs = {"input_ids": packing.ids, "position_ids": packing.positions, "use_cache": False}
    return model(**inputs, packing=packing).last_hidden_state[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("kinds", [(MistralModel, MistralConfig), (Qwen3Model, Qwen3Config)])
@pytest.mark.parametrize("adapts", [False, True])
def test_all_layers_and_rows_run_three_graphs(
    adapts: bool, kinds: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    monkeypatch.setattr(attention, "pick_kernel", torch.compiler.assume_constant_result(lambda _: "flex"))
    model = decoder(*kinds)
    names = list(model.state_dict())
    assert fuse(model)
    assert list(model.state_dict()) == names
    lora = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    used = get_peft_model(model, lora) if adapts else model
    found = []
    for is_training in (False, True):  # as it is, then compiled
        used.train(is_training)
        counters.clear()
        with torch.no_grad():  # on a CPU FlexAttention has no backward pass
            found.append([run(used, packing) for packing in rows()])
    assert counters["stats"]["unique_graphs"] == 3
    assert not counters["graph_break"]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_another_kind_of_decoder_is_left_as_it_is() -> None:
    model = decoder()
    model.config.model_type = "gemma3_text"
    before = [module.forward for module in model.modules()]
    assert not fuse(model)
    assert [module.forward for module in model.modules()] == before


@needs_gpu
@pytest.mark.parametrize("recomputes", [False, True])
def test_on_a_gpu_gradients_are_those_of_the_layers_as_they_are(recomputes: bool) -> None:
    found = []
    for is_fused in (False, True):
        model = decoder(sliding_window=100).cuda()
        if is_fused:
            fuse(model)
        if recomputes:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        vectors = [run(model, packing.to(torch.device("cuda"))) for packing in rows()]
        sum((part.square() * torch.arange(64, device="cuda")).sum() for part in vectors).backward()  # type: ignore[union-attr]
        found.append([*(part.detach() for part in vectors), *(p.grad for p in model.parameters())])
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() < 1e-4 * one.norm()


@needs_gpu
def test_on_a_gpu_dropout_falls_again_as_it_fell_when_a_layer_is_recomputed() -> None:
    found = []
    for recomputes in (False, True):
        model = decoder().cuda()
        fuse(model)
        if recomputes:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.3))
        torch.manual_seed(5)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        run(adapted, rows()[0].to(torch.device("cuda"))).square().sum().backward()
        found.append([p.grad for p in adapted.parameters() if p.requires_grad])
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() < 1e-4 * one.norm()
