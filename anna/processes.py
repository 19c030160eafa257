"""Models in processes of this machine, the GPUs dealt out to them in turn, with the results of one process.

Batches are planned once, as the local engine plans them, and each is computed alone: who computes it changes nothing.
"""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import Synchronized
from typing import Self, TypeVar

import torch

from anna import log
from anna.allocation import keep_freed_memory
from anna.engine import Items, Loaded, ModelSpec, in_turn
from anna.errors import InputError
from anna.machine import num_cpus
from anna.shards import Values

T = TypeVar("T")
R = TypeVar("R")

BATCHES_AHEAD = 4
"""Batches queued for each worker before its first result is read, so that no worker waits for this process."""


class Processes:
    """See `engine.Engine`."""

    wants_all = False

    def __init__(self, workers: int) -> None:
        """Remember how many models to load; processes are started when the first one is asked for.

        Args:
            workers: Models loaded at once.
        """
        # Not forked: this process may have threads, and CUDA in use.
        context = multiprocessing.get_context("spawn")
        self.workers = workers
        begin = partial(_begin, threads=torch.get_num_threads(), share=max(1, num_cpus() // workers))
        self._pool = ProcessPoolExecutor(workers, context, begin, (context.Value("i", 0),))

    def __enter__(self) -> Self:
        """Be left at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes, and what they are still to compute."""
        self._pool.shutdown(cancel_futures=True)

    def compute(self, spec: ModelSpec, items: Items) -> Iterator[tuple[Sequence[int], Values]]:
        """See `Engine`. A worker plans, so that this process need not load the model, too."""
        sent = pickle.dumps(spec)
        try:
            batches = self._pool.submit(_plan, sent, items).result()
            results = self._results(sent, ([items[place] for place in batch] for batch in batches))
            progress = log.progress(results, unit="batch", desc=spec.kind.replace("_", " "), total=len(batches))
            yield from zip(batches, progress, strict=True)
        except BrokenProcessPool:
            raise InputError(
                f"{spec.kind}: one of {self.workers} processes was killed, most likely for want of memory; set "
                "scoring.workers to fewer. What was computed is kept: the stage goes on from there"
            ) from None

    def _results(self, sent: bytes, batches: Iterable[Items]) -> Iterator[Values]:
        started = (self._pool.submit(_compute, sent, batch) for batch in batches)
        return (job.result() for job in in_turn(started, BATCHES_AHEAD * self.workers))

    def map(self, function: Callable[..., R], items: Iterable[T], *shared: object) -> Iterator[R]:
        """See `Engine`. Searches stay in this process: they use all its cores, and their vectors lie here."""
        return (function(item, *shared) for item in items)


def _begin(number: "Synchronized[int]", *, threads: int, share: int) -> None:
    """Make this new process a worker.

    Args:
        number: Of the next worker.
        threads: Of PyTorch; they decide how sums on a CPU are grouped.
        share: Its part of the machine's cores, on which texts are tokenised.
    """
    os.environ.setdefault("RAYON_NUM_THREADS", str(share))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the stage's process is interrupted too, and ends us
    threading.Thread(target=_end_with, args=[multiprocessing.parent_process()], daemon=True).start()
    log.setup(is_first=False)
    keep_freed_memory()
    torch.set_num_threads(threads)
    with number:
        own, number.value = number.value, number.value + 1
    if torch.cuda.is_available():
        torch.cuda.set_device(own % torch.cuda.device_count())


def _end_with(parent: BaseProcess) -> None:
    """End this process when its parent has ended, however that ended: a killed stage must not leave GPUs taken."""
    parent.join()
    os._exit(1)


_models = Loaded[bytes](lambda sent: pickle.loads(sent).load())
"""This worker's, by its pickled `ModelSpec`."""


def _plan(sent: bytes, items: Items) -> list[list[int]]:
    return _models[sent].plan(items)


def _compute(sent: bytes, items: Items) -> Values:
    return _models[sent].compute(items)
