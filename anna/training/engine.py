"""A DeepSpeed engine around the encoder: ZeRO 0 to 3, on one process or many, CPU or GPU."""

import contextlib
import logging
import os
import socket
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from anna import ranks
from anna.errors import InputError, one_line
from anna.modeling.encoder import Encoder
from anna.modeling.fused import gathered_whole
from anna.modeling.hardware import tell_deepspeed
from anna.training.recipe import TrainParams

tell_deepspeed()
import deepspeed  # noqa: E402
from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer  # noqa: E402
from deepspeed.utils import set_z3_leaf_module  # noqa: E402

PATIENCE = timedelta(hours=1)
"""How long ranks that have met wait for one that is at work alone, where PyTorch and DeepSpeed end a run after ten
minutes: a checkpoint of 100 GB may take longer to a slow disk, and one machine may have to fetch the model (ours)."""

_log = logging.getLogger(__name__)


def init_distributed() -> tuple[int, int]:
    """Join the process group that the launcher describes, or make one of this process alone; return rank and size.

    Raises:
        InputError: If a launcher started more processes on this machine than it has GPUs, or not all of them came.
    """
    if not ranks.is_launched():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        alone = {
            "RANK": "0",
            "LOCAL_RANK": "0",
            "WORLD_SIZE": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        os.environ.update(alone)
    if torch.cuda.is_available():
        local_rank, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local_rank >= gpus:
            raise InputError(
                f"process {local_rank + 1} of this machine has no GPU, there are {gpus}: start no more processes on it"
            )
        torch.cuda.set_device(local_rank)
    if not dist.is_initialized():
        # On CPUs DeepSpeed would first compile an all-reduce of its own: a minute, and a compiler, for nothing here.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        _meet("nccl" if torch.cuda.is_available() else "gloo")
        _wait_longer()
    return dist.get_rank(), dist.get_world_size()


def _meet(backend: str) -> None:
    """Wait for all processes of the run."""
    rank, world_size, host, port = (os.environ[name] for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))
    if world_size != "1":
        _log.info("waiting for all of %s processes at %s:%s", world_size, host, port)
    try:
        deepspeed.init_distributed(dist_backend=backend, verbose=False)
    except dist.DistError as error:
        raise InputError(
            f"rank {rank} of {world_size} did not meet the others at {host}:{port} ({one_line(error)}); start all of "
            f"them, or, if this one was to train alone, first: unset {' '.join(ranks.TOLD)}"
        ) from None


def _wait_longer(group: dist.ProcessGroup | None = None) -> None:
    """Give what ranks compute together as long as `PATIENCE`; None: in the group of all, which is not DeepSpeed's."""
    dist.distributed_c10d._set_pg_timeout(PATIENCE, group)


def add_lora(encoder: Encoder, *, rank: int, alpha: int, dropout: float) -> None:
    """Freeze the backbone and put LoRA adapters on all its linear layers (BGE-EN-ICL: rank 32, alpha 64)."""
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules="all-linear", bias="none", task_type=None
    )
    encoder.backbone = get_peft_model(encoder.backbone, config)


def gather_layers(backbone: PreTrainedModel) -> None:
    """Make ZeRO 3 gather a middle layer's weights at once, not matrix by matrix and adapter by adapter.

    DeepSpeed then takes a layer's gradients for whole when it has been through it backwards, so that no layer may run
    twice before: the encoder computes all parts in one pass.
    """
    for layer in gathered_whole(backbone):
        set_z3_leaf_module(layer, flag=True)


def adamw(weights: Sequence[nn.Parameter], learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """Return the optimizer of all training here."""
    return torch.optim.AdamW(weights, lr=learning_rate, weight_decay=weight_decay, betas=(0.9, 0.98), fused=True)


def start_engine(encoder: Encoder, recipe: TrainParams) -> Any:
    """Return a DeepSpeed engine over the encoder's trainable weights, with AdamW; it moves them to the GPU if any."""
    trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    optimizer = adamw(trained, recipe.learning_rate, recipe.weight_decay)
    is_bf16 = torch.cuda.is_available() and encoder.dtype == torch.bfloat16
    config = {
        # One DeepSpeed micro-batch is one contrastive batch, so the sizes that it would derive are not used.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_clipping": recipe.max_gradient_norm,
        "zero_optimization": {
            "stage": recipe.zero_stage,
            "stage3_param_persistence_threshold": 0,  # so that tiny models in tests go the way of large ones
            "memory_efficient_linear": False,  # at stage 3 it would be compiled anew for every layer, and saves nothing
        },
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": is_bf16},
        "steps_per_print": 10**9,
    }
    engine, *_ = deepspeed.initialize(model=encoder, optimizer=optimizer, model_parameters=trained, config=config)
    _wait_longer(engine.data_parallel_group)
    _undo_first_step(engine.optimizer)
    return engine


def _undo_first_step(optimizer: Any) -> None:
    """Put the optimizer of ZeRO 0 in bfloat16 back to where it was before DeepSpeed made it take a step.

    It does so, with gradients of zero, to have memory allotted. Adam would then count from 1, and its first steps be
    three quarters of what they are at the other stages.
    """
    if isinstance(optimizer, FP16_UnfusedOptimizer):
        optimizer.optimizer.state.clear()
        optimizer.refresh_fp32_params()


def step(engine: Any) -> float:
    """Take an optimizer step and return the norm of the whole gradient before clipping."""
    # Without ZeRO, DeepSpeed clips but does not keep the norm; the gradients are then whole on every rank.
    gradients = [p.grad for p in engine.module.parameters() if p.grad is not None]
    whole = torch.nn.utils.get_total_norm(gradients) if engine.zero_optimization_stage() == 0 else None
    engine.step()
    return float(engine.get_global_grad_norm() if whole is None else whole)


def weights(module: nn.Module, *, is_trained: bool) -> dict[str, Tensor]:
    """Return whole copies of the weights on the first rank's CPU, whatever the ZeRO stage, and nothing on the others.

    Every rank must call this. At ZeRO 3 a GPU gathers one of them at a time: it may not have room for all.

    Args:
        module: The encoder's backbone.
        is_trained: Those that have a gradient, or else those that have none.
    """
    copies: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad != is_trained:
            continue
        is_sharded = hasattr(parameter, "ds_id")
        with deepspeed.zero.GatheredParameters([parameter]) if is_sharded else contextlib.nullcontext():
            if dist.get_rank() == 0:
                copies[name] = parameter.detach().to("cpu", copy=True)
    return copies


def check_moved(before: dict[str, Tensor], after: dict[str, Tensor], step: int, decay: float = 1.0) -> float:
    """Return the relative size of the update over all trained weights, after refusing one that is not an update.

    On a GPU trained weights are bfloat16, where a small step may round to nothing; one moved weight is then enough. The
    same holds after the first step: half of an adapter has no gradient until the other half has moved.

    Args:
        before: Weights before the first step.
        after: The same after `step` steps.
        step: At least 1.
        decay: What weight decay alone has made of 1 by then: a weight without a gradient shrinks by it, too.

    Raises:
        InputError: If any weight is NaN or infinite, or no gradient changed a value of some trained weight: the adapter
            that was saved would be the untrained one (peft #1402), or worthless (ainode #186).
    """
    moved = total = 0.0
    still = []
    for name, new in after.items():
        if not torch.isfinite(new).all():
            raise InputError(f"weight {name} has NaN or infinite values after training; lower train.learning_rate")
        old = before[name].double()
        if _is_still(old, new.double(), decay):
            still.append(name)
        moved, total = moved + (new.double() - old).pow(2).sum().item(), total + old.pow(2).sum().item()
    unexplained = [
        name for name in still if len(still) == len(after) or (after[name].dtype == torch.float32 and step > 1)
    ]
    if unexplained:
        raise InputError(
            f"weight {unexplained[0]} did not move in training ({len(still)} of {len(after)} did not); nothing is "
            "saved. Check train.learning_rate"
        )
    if still:
        _log.warning(
            "%d of %d trained weights did not move, or by less than bfloat16 can show, %s first; train on, or raise "
            "train.learning_rate, if that is not what you want",
            len(still),
            len(after),
            still[0],
        )
    return float((moved / max(total, 1e-12)) ** 0.5)


def _is_still(old: Tensor, new: Tensor, decay: float) -> bool:
    """Return whether no value changed, or all by nothing but weight decay, to a tenth of it: each step rounds."""
    return torch.equal(old, new) or bool(((new - decay * old).abs() <= 0.1 * (1 - decay) * old.abs()).all())
