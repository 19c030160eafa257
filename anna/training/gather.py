"""Vectors of all ranks on every rank, with gradients that flow back to where each vector was computed."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def gather_rows(rows_ND: Tensor, sizes: list[int]) -> Tensor:
    """Return the rows of all ranks in rank order, (sum of sizes, D), with gradients.

    Args:
        rows_ND: This rank's rows, (sizes[rank], D).
        sizes: Rows of each rank, known to all from the shared batch plan.
    """
    if len(sizes) == 1:
        return rows_ND
    gathered: Tensor = _Gather.apply(rows_ND, sizes)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    """All-gather of row blocks of unequal height; backward sums what each block contributed to the ranks' losses."""

    @staticmethod
    def forward(ctx: Any, rows_ND: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        padded = rows_ND.new_zeros(max(sizes), rows_ND.shape[1])
        padded[: len(rows_ND)] = rows_ND
        blocks = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(blocks, padded)
        return torch.cat([block[:size] for block, size in zip(blocks, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        grad = grads[0].contiguous()
        dist.all_reduce(grad)
        start = sum(ctx.sizes[: dist.get_rank()])
        return grad[start : start + ctx.sizes[dist.get_rank()]], None


def from_first(value: Any) -> Any:
    """Return the first rank's `value` on every rank."""
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]
