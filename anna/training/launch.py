"""Start a stage again on several processes of this machine."""

import os
import subprocess
import sys

from anna.errors import InputError


def relaunch(module: str, processes: int) -> bool:
    """Run `module` under torchrun on `processes` processes, and return whether that was needed.

    Nothing is started where there is one process, or a launcher (torchrun, deepspeed, Slurm) has already started us.

    Raises:
        InputError: If a process failed; its own message is above.
    """
    if processes == 1 or "RANK" in os.environ:
        return False
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes)), **os.environ}
    if subprocess.run([*command, "-m", module], check=False, env=environment).returncode:
        raise InputError(f"{module} failed on {processes} processes; the reason is above")
    return True
