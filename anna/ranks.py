"""Which of the processes that train together this one is, as torchrun and the deepspeed launcher tell each."""

import os
import threading
import time

STARTER = "ANNA_STARTED_BY"
"""Names the process that has started this one as a rank, where that was a stage of ours."""

TOLD = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher tells each process. A cluster may set some of it for its machines, or an earlier run leave it."""


def is_launched() -> bool:
    """Return whether a launcher started this process."""
    return all(name in os.environ for name in TOLD)


def rank() -> int:
    """Return this process's number, 0 where no launcher gave it one."""
    return int(os.environ["RANK"]) if is_launched() else 0


def ranks_here(ranks: int) -> int:
    """Return how many of all ranks are on this machine: what torchrun or deepspeed says, or all of them."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or ranks)


def num_machines() -> int:
    """Return on how many machines the ranks are."""
    if not is_launched():
        return 1
    ranks = int(os.environ["WORLD_SIZE"])
    return ranks // ranks_here(ranks)


def end_with_starter() -> None:
    """End this process when the stage that started it has ended, however that ended; torchrun would train on."""
    if STARTER in os.environ:
        threading.Thread(target=_end_with, args=[int(os.environ[STARTER])], daemon=True).start()


def _end_with(pid: int) -> None:
    while True:
        try:
            os.kill(pid, 0)  # sends nothing
        except ProcessLookupError:
            os._exit(1)
        time.sleep(1)
