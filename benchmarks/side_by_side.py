"""Ours and a peer on the same work in one run: each side in a process of its own, in turn, several rounds.

Our sides keep freed memory, as our stages do; peers run as their users run them.
"""

import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import torch

from anna.shapes import Shape

ROUNDS = 3
LONG = 60.0
"""Seconds from which one round is enough: what disturbs it is small beside it."""


class Figures(NamedTuple):
    """What one side did in one round."""

    seconds: float
    computed: int
    """Tokens that went through the model, padding and repetition included."""
    useful: int
    """Tokens that had to: each text once, and a prompt once per batch."""
    memory_mib: float
    """Largest resident memory of the process."""


class Work:
    """Counts what goes through a model and how long it takes; one round of one side."""

    def __init__(self) -> None:
        """Start with nothing counted."""
        self.computed, self.seconds = 0, 0.0

    def count(self, token_table: torch.nn.Module) -> None:
        """Count the tokens of every call of a model's token table from now on."""

        def hook(_: torch.nn.Module, args: tuple[torch.Tensor]) -> None:
            self.computed += args[0].numel()

        token_table.register_forward_pre_hook(hook)

    def run(self, act: Callable[[], object]) -> None:
        """Run `act` and count its seconds."""
        started = time.perf_counter()
        act()
        self.seconds += time.perf_counter() - started

    def figures(self, useful: int) -> Figures:
        """Return what was counted."""
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return Figures(self.seconds, self.computed, useful, memory)


def operations(shape: Shape, tokens: int, passes: int) -> float:
    """Return the floating-point operations of the matrix products that a decoder's tokens need, at least.

    Of the last layer only keys and values are needed of most tokens, and no more is counted. Recomputation and a second
    pass of GradCache are not needed; attention is, but not counted: a few percent.

    Args:
        shape: Of the decoder.
        tokens: Useful ones.
        passes: 1 to encode; 2 to train adapters, each product once more for the gradient of its input; 3 to train all,
            once more for that of its weights.
    """
    return 2.0 * passes * tokens * ((shape.layers - 1) * shape.matrices + shape.key_matrices)


Side = Callable[..., Figures]
"""A function of a module, so that another process can import it."""


def compare(sides: Mapping[str, tuple[Side, Sequence[Any]]], rounds: int = ROUNDS) -> dict[str, Figures]:
    """Run every side once per round, in turn, and return each side's round of median time.

    A side whose first round took more than `LONG` seconds is not run again.
    """
    results: dict[str, list[Figures]] = {name: [] for name in sides}
    context = multiprocessing.get_context("spawn")
    for number in range(rounds):
        for name, (side, arguments) in sides.items():
            if results[name] and results[name][0].seconds > LONG:
                continue
            # A process that ends by itself: one that is stopped leaves semaphores behind, and a warning for each.
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                results[name].append(pool.submit(side, *arguments).result())
            sys.stderr.write(f"round {number + 1}/{rounds}, {name}: {results[name][-1].seconds:.2f} s\n")
    return {name: sorted(figures)[len(figures) // 2] for name, figures in results.items()}


def table(title: str, results: Mapping[str, Figures]) -> str:
    """Return a Markdown table of one comparison."""
    first = next(iter(results.values()))
    lines = [
        f"\n### {title}\n",
        "| | seconds | tokens computed | tokens useful | peak MiB | time, ours = 1 |",
        "|---|" + "---|" * 5,
    ]
    for name, (seconds, computed, useful, memory) in results.items():
        ratio = seconds / first.seconds
        lines.append(f"| {name} | {seconds:.2f} | {computed:,} | {useful:,} | {memory:,.0f} | {ratio:.2f} |")
    return "\n".join(lines)


class Row(NamedTuple):
    """One result: figures of both sides, how many times better ours is, and what it should be."""

    ours: float
    peer: float | None
    ratio: float
    target: float


def faster(ours: Figures, peer: Figures, target: float) -> Row:
    """Return how many times as fast ours is, in seconds."""
    return Row(ours.seconds, peer.seconds, peer.seconds / ours.seconds, target)


def report(rows: Mapping[str, Row]) -> str:
    """Return the last line: one JSON object, name -> {ours, peer, ratio, target}."""
    return json.dumps({name: {k: v and round(v, 4) for k, v in row._asdict().items()} for name, row in rows.items()})
