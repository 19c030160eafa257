"""What runs the pipeline: memory and speed of known GPUs, and of this machine."""

import os
import re
import statistics
import time
from typing import TYPE_CHECKING, NamedTuple

from anna import machine
from anna.errors import InputError
from anna.footprint import GIB

if TYPE_CHECKING:
    import torch

GPU_SHARE = 0.4
"""Of a GPU's peak that training and encoding reach (assumed; Llama 3 was trained at 0.38 to 0.43 of the peak of H100s,
arXiv 2407.21783, table 4)."""

BETWEEN = 1.2e-12
"""Seconds that what lies between a CPU's matrix products takes (norms, softmax, reading and writing), for each of their
operations: 0.8e-12 and 1.7e-12 on two kinds of CPU, whose products ran at 188 and 366 GFLOP/s (docs/LOG.md)."""

SERVER_CPU = 1e12
"""Float32 operations per second of the CPU beside a GPU from the table (assumed), for search alone."""

BUSY = 0.5
"""Processes that run or wait, as a share of the cores, from which a measured rate is said to be too low."""

MEASURED_SHAPE = (2048, 576, 1536)
"""Of the matrix product that is timed: tokens, and the largest matrix of the default's student."""

GPU_SHAPE = (8192, 4096, 14336)
"""The same on a GPU: more tokens, and the largest matrix of Mistral-7B."""


class Gpu(NamedTuple):
    """One kind of GPU."""

    memory_gib: float
    """What a program finds, a little less than is sold."""
    tflops: float
    """Peak of dense bfloat16 matrix products, without sparsity."""


GPUS = {
    "a10g": Gpu(22.0, 70),
    "a100-40": Gpu(39.4, 312),
    "a100-80": Gpu(79.2, 312),
    "b200": Gpu(178.0, 2250),
    "h100": Gpu(79.2, 989),
    "h200": Gpu(139.8, 989),
    "l4": Gpu(22.0, 121),
    "l40s": Gpu(44.4, 362),
    "rtx3090": Gpu(23.6, 71),
    "rtx4090": Gpu(23.6, 165),
}
"""NVIDIA's data sheets: SXM versions of a100 and later; accumulation in float32."""

GPUS_OF_MACHINE = 8
"""At most; more are several machines."""

CORES_PER_GPU = 8
"""Beside a GPU from the table (assumed; machines for rent have 12 to 28 virtual ones)."""

HOST_BANDWIDTH = 500e6
"""Bytes per second that are read from and written to disk, and converted on the way (assumed)."""


class Hardware(NamedTuple):
    """What the plan is for."""

    name: str
    devices: int
    """GPUs; 1 for a CPU."""
    memory: float
    """Bytes of each GPU, or of the machine."""
    rate: float
    """Operations per second that a model reaches on each."""
    is_gpu: bool
    basis: str
    """Where the rate comes from."""
    cores: int
    """Of the machine."""
    beside: float | None = None
    """Bytes of the machine's own memory beside its GPUs; None: not known, or there are none."""

    @property
    def search_rate(self) -> float:
        """Operations per second of exhaustive search, which runs on the CPU."""
        return SERVER_CPU if self.is_gpu else self.rate


def parse(text: str, share: float = GPU_SHARE) -> Hardware:
    """Return the hardware that `text` names: `h200x8` is eight H200.

    Args:
        text: A GPU of the table, and how many.
        share: Of the peak that the models reach.

    Raises:
        InputError: If the table has no such GPU, or `share` is none.
    """
    if not 0 < share <= 1:
        raise InputError(f"--share {share:g}: expected a share of the peak, above 0 and at most 1, e.g. {GPU_SHARE}")
    wanted = text.lower()
    match = None if wanted in GPUS else re.fullmatch(r"(?P<name>.+?)x(?P<count>[1-9]\d*)", wanted)
    name, count = (match["name"], int(match["count"])) if match else (wanted, 1)
    if name not in GPUS:
        raise InputError(f"--hardware {text}: no such GPU is known; choose of {', '.join(sorted(GPUS))}, e.g. h200x8")
    gpu = GPUS[name]
    basis = f"{share:.0%} of {gpu.tflops:,.0f} TFLOP/s dense bfloat16"
    cores = CORES_PER_GPU * min(count, GPUS_OF_MACHINE)
    return Hardware(f"{count} x {name}", count, gpu.memory_gib * GIB, share * gpu.tflops * 1e12, True, basis, cores)


def this_machine(seconds: float = 0.5) -> Hardware:
    """Return this machine's GPUs, or its CPU, with the matrix rate measured now: a busy machine plans longer."""
    import torch  # heavy; only this needs it

    cores = machine.num_cpus()
    if torch.cuda.is_available():
        found = torch.cuda.get_device_properties(0)
        rate = matrix_rate(torch.bfloat16, GPU_SHAPE, seconds)
        basis = f"{GPU_SHARE:.0%} of {rate / 1e12:,.0f} TFLOP/s bfloat16, measured now"
        count, memory, reached = torch.cuda.device_count(), found.total_memory, GPU_SHARE * rate
        return Hardware(f"{count} x {found.name}", count, memory, reached, True, basis, cores, machine.memory())
    rate = matrix_rate(torch.float32, MEASURED_SHAPE, seconds)
    reached = cpu_rate(rate)
    basis = f"{reached / rate:.0%} of {rate / 1e9:,.0f} GFLOP/s float32, measured now"
    if (load := os.getloadavg()[0]) > BUSY * cores:
        basis += f" beside other work (load {load:.1f}), so all times are too long"
    return Hardware(f"this machine, {cores} CPUs", 1, machine.memory(), reached, False, basis, cores)


def cpu_rate(products: float) -> float:
    """Return the operations per second that models reach on a CPU whose matrix products alone run at `products`."""
    return 1 / (1 / products + BETWEEN)


def matrix_rate(dtype: "torch.dtype", shape: tuple[int, int, int] = MEASURED_SHAPE, seconds: float = 3.0) -> float:
    """Return the operations per second of matrix products on this machine, on its GPU where it has one.

    Args:
        dtype: Of both factors.
        shape: Rows, inner size and columns of the product.
        seconds: How long to measure; the median counts.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows, inner, columns = shape
    left, right = (torch.randn(*size, device=device, dtype=dtype) for size in ((rows, inner), (inner, columns)))
    times: list[float] = []
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends or len(times) < 5:
        started = time.perf_counter()
        left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return 2 * rows * inner * columns / statistics.median(times)
