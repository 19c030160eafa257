"""Compiled layers: the same vectors and gradients, one set of kernels for all layers and rows."""

import shutil
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch._dynamo.utils import counters
from torch.utils.checkpoint import checkpoint
from transformers import MistralConfig, MistralModel, Qwen3Config, Qwen3Model

from anna.modeling import attention, fused
from anna.modeling.fused import fuse, fuse_part
from anna.modeling.packing import Packing, Text, pack

SIZES = {"vocab_size": 90, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 11, "head_dim": 16}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2}


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
    monkeypatch.setattr(fused, "sparing", lambda graph, _: graph)
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


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for a CPU with g++")
@pytest.mark.parametrize("recomputes", [False, True])
def test_gradients_are_those_of_the_dropout_that_fell(recomputes: bool) -> None:
    mlp = adapted_mlp()  # float64 would fall back on PyTorch's own dropout
    fuse_part(mlp)
    inputs = torch.randn(40, 64)

    def loss() -> Tensor:
        torch.manual_seed(7)
        return (checkpoint(mlp, inputs, use_reentrant=False) if recomputes else mlp(inputs)).double().square().sum()

    def moved(step: float) -> float:
        with torch.no_grad():
            for parameter in mlp.parameters():
                parameter.add_(parameter.grad, alpha=step)
            return float(loss())

    fell = loss()
    fell.backward()
    with torch.no_grad():
        assert loss() == fell  # the pass without gradients of micro-steps, whose vectors the loss is computed of
    told = sum(float(parameter.grad.square().sum()) for parameter in mlp.parameters())
    step = 3e-3 / told**0.5
    assert (moved(step) - moved(-2 * step)) / (2 * step) == pytest.approx(told, rel=1e-3)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for a CPU with g++")
def test_a_compiled_mlp_keeps_its_input_its_halves_and_adapters_middles() -> None:
    mlp, kept = adapted_mlp(), dict[int, int]()
    fuse_part(mlp)
    inputs = torch.randn(500, 64, requires_grad=True)

    def keep(tensor: Tensor) -> Tensor:
        if 500 in tensor.shape:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        mlp(inputs)
    assert sum(kept.values()) == 500 * (64 + 2 * 96 + 3 * 4) * 4


def adapted_mlp() -> Any:
    model = get_peft_model(decoder(), LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.3))
    torch.manual_seed(5)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter.requires_grad_(), std=0.1)
    return model.base_model.model.layers[0].mlp.train()


@pytest.mark.gpu
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


@pytest.mark.gpu
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
        vectors = run(adapted, rows()[0].to(torch.device("cuda")))
        (vectors.square() * torch.arange(64, device="cuda")).sum().backward()  # unweighted, a norm's output has one sum
        found.append([vectors.detach(), *(p.grad for p in adapted.parameters() if p.requires_grad)])
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() < 1e-4 * one.norm()
