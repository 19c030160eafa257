"""Start a stage again on several processes of this machine."""

import os
import subprocess
import sys

import torch

from anna import ranks
from anna.errors import InputError
from anna.machine import num_cpus


def relaunch(module: str, processes: int) -> bool:
    """Run `module` under torchrun on `processes` processes, and return whether that was needed.

    Nothing is started where there is one process, or a launcher (torchrun, deepspeed) has already started us.

    Raises:
        InputError: If a process failed (its own message is above), several of us were started, by Slurm or on several
            machines, which would not know of each other, or there are GPUs, but fewer than processes.
    """
    if ranks.is_launched():
        return False
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        raise InputError(
            f"srun has started {module} {os.environ['SLURM_STEP_NUM_TASKS']} times, and none knows of the others; let "
            "srun start one torchrun per node (docs/SCALING.md)"
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but no launcher has started {module}, which would set all of "
            f"{', '.join(ranks.TOLD)}. To train on several machines start torchrun on each (docs/SCALING.md); on this "
            "one alone, first: unset WORLD_SIZE"
        )
    if processes == 1:
        return False
    check_gpus(processes)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    threads = str(max(1, num_cpus() // processes))
    shares = {"OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads}  # of PyTorch, and of tokenizers
    environment = {**shares, **os.environ, ranks.STARTER: str(os.getpid())}
    if subprocess.run([*command, "-m", module], check=False, env=environment).returncode:
        raise InputError(f"{module} failed on {processes} processes; the reason is above")
    return True


def check_gpus(processes: int) -> None:
    """Refuse more processes than this machine has GPUs, if it has any."""
    if torch.cuda.is_available() and processes > (gpus := torch.cuda.device_count()):
        raise InputError(f"train.processes is {processes}, but this machine has {gpus} GPU(s); set it to {gpus}")
