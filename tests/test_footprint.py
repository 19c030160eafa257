"""Sizes and memory: against what transformers and peft build, DeepSpeed's estimators, and tensors that are kept."""

import itertools
from typing import Any

import pytest
import torch
from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs
from transformers import AutoConfig, AutoModel

from anna.errors import InputError
from anna.footprint import (
    GIB,
    GPU_BASE,
    Setup,
    States,
    activations,
    floor,
    peak,
    recomputed_layers,
    remedies,
    states,
    whole_weights,
)
from anna.known_shapes import KNOWN
from anna.modeling.encoder import Encoder, Part
from anna.shapes import Shape
from anna.training.engine import add_lora

SIZES = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}

SMALL = Shape(layers=2, hidden=4, ffn=8, heads=2, key_heads=1, head_dim=2, vocabulary=10)
"""Of its layers: 2 x (16 + 8 + 8 + 16 + 3 x 32) in matrices and 2 x 8 in norms; a table of 40, a last norm of 4."""


def make(**changes: Any) -> Setup:
    plain = Setup(SMALL, 4, 10, True, 1, "full", 2, False, 0, False, 2)
    return plain._replace(**changes)


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("mistral", {"num_key_value_heads": 2}),
        ("llama", {"num_key_value_heads": 1, "head_dim": 8}),
        ("qwen2", {"num_key_value_heads": 2}),
        ("qwen3", {"num_key_value_heads": 2, "head_dim": 32}),
        ("bert", {}),
        ("xlm-roberta", {"type_vocab_size": 1}),
    ],
)
def test_parameters_are_those_that_transformers_builds(kind: str, more: dict[str, int]) -> None:
    config = AutoConfig.for_model(kind, **SIZES, **more)
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    assert Shape.of(config.to_dict()).parameters == sum(p.numel() for p in model.parameters())


def test_the_students_file_has_four_bytes_of_each_parameter() -> None:
    parameters = KNOWN["smollm2-135m"].cut(6).parameters
    assert 0 < 198_216_696 - 4 * parameters < 10_000  # what is left is the header of model.safetensors


def test_adapters_are_those_that_peft_adds(tiny_encoder: Encoder) -> None:
    shape = Shape.of(tiny_encoder.backbone.config.to_dict())
    add_lora(tiny_encoder, rank=5, alpha=1, dropout=0.0)
    assert shape.adapters(5) == sum(p.numel() for p in tiny_encoder.backbone.parameters() if p.requires_grad)


def test_an_unknown_form_is_named() -> None:
    with pytest.raises(KeyError, match="mamba"):
        Shape.of({"model_type": "mamba", "num_attention_heads": 1})


def test_states_by_stage_in_bfloat16() -> None:
    trained = SMALL.parameters
    assert trained == 2 * (16 + 8 + 8 + 16 + 96) + 2 * 8 + 40 + 4
    bucket = 2 * 500_000_000
    assert states(make(zero_stage=0)) == States(2 * trained, 6 * trained, 12 * trained, 0)
    assert states(make(zero_stage=1)) == States(2 * trained, 2 * trained + trained, 3 * trained, bucket)
    assert states(make(zero_stage=2)) == States(2 * trained, trained / 2 + trained, 3 * trained, bucket)
    assert states(make(zero_stage=3)) == States(trained / 2, trained * 1.5, 3 * trained, bucket + 2 * trained)


def test_states_on_a_cpu_have_no_copy_where_none_is_made() -> None:
    trained = SMALL.parameters - 40
    cpu = make(is_gpu=False, weight_bytes=4, freeze_token_table=True, ranks=1)
    assert states(cpu._replace(zero_stage=0)) == States(4 * (trained + 40), 4 * trained, 8 * trained, 0)
    assert states(cpu._replace(zero_stage=1)) == States(4 * (trained + 40), 8 * trained, 12 * trained, 4 * trained)


def test_the_full_model_in_16_bits_is_as_deepspeed_estimates_it() -> None:
    shape = KNOWN["mistral-7b"]
    setup = make(shape=shape, ranks=8, zero_stage=2)
    _, theirs = estimate_zero2_model_states_mem_needs(shape.parameters, num_gpus_per_node=8, cpu_offload=False)
    assert sum(states(setup)[:3]) == pytest.approx(theirs, rel=1e-6)
    _, theirs, largest = estimate_zero3_model_states_mem_needs(
        shape.parameters, shape.table, num_gpus_per_node=8, cpu_offload=False, cpu_offload_params=False
    )
    # It leaves the sharded weights themselves out: 18 bytes instead of 20.
    assert sum(states(setup._replace(zero_stage=3))[:3]) == pytest.approx((theirs - largest) * 20 / 18, rel=1e-6)


def test_a_quantised_base_is_an_eighth_of_float32_and_its_constants() -> None:
    setup = make(shape=KNOWN["mistral-7b"], method="lora", lora_rank=32, is_quantized=True)
    assert whole_weights(setup) / GIB == pytest.approx(3.36 + 0.16 + 0.24, abs=0.1)  # matrices, adapters, table


def test_activations_are_the_tensors_that_autograd_keeps(tiny_encoder: Encoder) -> None:
    shape = Shape.of(tiny_encoder.backbone.config.to_dict())
    weights = {parameter.untyped_storage().data_ptr() for parameter in tiny_encoder.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tensor.is_floating_point():
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    rows = [list(range(3, 63))] * 8
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        (vectors,) = tiny_encoder.train()([Part(rows)])
    assert vectors.requires_grad
    setup = make(shape=shape, ranks=1, tokens=8 * 60, is_gpu=False, weight_bytes=4)
    assert activations(setup) == pytest.approx(sum(kept.values()), rel=0.15)


def test_checkpointing_keeps_a_layers_input_and_one_layer() -> None:
    setup = make(shape=KNOWN["mistral-7b"], tokens=1, recomputed=32)
    one = 2 * (4 + 4) * 4096 + (3 * 4096 + 2 * 1024 + 4 * 14336) * 2
    assert activations(setup) == 32 * 4096 * 2 + one
    last = (4 + 4) * 4096 + 2 * 1024 * 2
    three = (4 * 4096 + 2 * 4096 + 2 * 1024 + 2 * 14336) * 2 * 3  # compiled
    assert activations(setup._replace(recomputed=28)) == 28 * 4096 * 2 + three + last
    assert activations(setup._replace(recomputed=28, zero_stage=3)) == 28 * 4096 * 2 + three + last
    assert activations(setup._replace(recomputed=0)) == three * 31 / 3 + last
    assert activations(setup._replace(recomputed=0, zero_stage=3)) == one + three * 30 / 3 + last  # but the first
    assert activations(setup._replace(recomputed=28, is_quantized=True)) == 28 * 4096 * 2 + 3 * one + last


@pytest.mark.parametrize(("told", "layers"), [(True, 32), (False, 0), (6, 6), (32, 32)])
def test_gradient_checkpointing_is_a_number_of_layers(told: bool | int, layers: int) -> None:
    assert recomputed_layers(told, 32) == layers


def test_more_layers_to_compute_again_than_there_are_are_refused() -> None:
    with pytest.raises(InputError, match=r"train.gradient_checkpointing is 33, but the student has 32 layers"):
        recomputed_layers(33, 32)


def test_a_measured_step_of_mistral_7b() -> None:
    """One H200: `python -m benchmarks.gpu --zero 1 --examples 5 --recomputed 0`, 100.7 GiB without CUDA's context."""
    lora = make(shape=KNOWN["mistral-7b"], ranks=1, tokens=25412, method="lora", lora_rank=32)
    assert (peak(lora) - GPU_BASE) / GIB == pytest.approx(100.7, rel=0.05)


def test_the_floor_is_never_above_the_estimate() -> None:
    for stage, method, ranks, b in itertools.product(range(4), ("full", "lora"), (1, 2, 64), (2, 4)):
        for shape in (SMALL, KNOWN["mistral-7b"]):
            setup = make(shape=shape, zero_stage=stage, method=method, ranks=ranks, weight_bytes=b, is_gpu=b == 2)
            assert 0 < floor(setup) <= peak(setup), setup


def test_every_gpu_holds_all_weights_for_a_moment() -> None:
    setup = make(shape=KNOWN["mistral-7b"], zero_stage=3, method="lora", ranks=64)
    assert floor(setup) == whole_weights(setup)
    assert floor(setup._replace(is_gpu=False)) < whole_weights(setup) / 10


def test_remedies_are_enough_and_cheapest_first() -> None:
    setup = make(shape=KNOWN["mistral-7b"], method="lora", lora_rank=32, ranks=8, tokens=16384)
    setup = setup._replace(recomputed=32)
    memory = 23.6 * GIB
    assert peak(setup) > memory
    found = remedies(setup, memory)
    keys = ["train.max_micro_step_tokens: 8192", "train.zero_stage: 3", "train.quantize: nf4"]
    assert [text.rsplit(" ", 2)[0] for text in found] == keys
    assert peak(setup._replace(tokens=8192)) <= memory
    assert peak(setup._replace(zero_stage=3)) <= memory


def test_several_remedies_together_where_one_is_not_enough() -> None:
    setup = make(shape=KNOWN["mistral-7b"], method="full", ranks=8, tokens=65536, zero_stage=1)
    (found,) = remedies(setup, 24 * GIB)
    assert " and " in found
    assert "train.method: lora" in found
    assert remedies(setup, 1 * GIB) == []
