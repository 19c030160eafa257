"""Logging, progress, and what every stage does around its work: say when it starts, what it cost, why it failed."""

import errno
import json
import logging
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from anna import ranks
from anna.allocation import keep_freed_memory
from anna.errors import InputError
from anna.lock import held
from anna.machine import num_cpus
from anna.params import PARAMS_FILE

T = TypeVar("T")

COST_DIR = Path("metrics/cost")
"""One small JSON per stage: seconds, memory, device. Apart from the metrics, which must not change with the clock."""

LOCKS = Path("runs")
"""Where the lock of each stage lies."""

DENIED = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM})
"""Errors by which the system denies room for a file, or access to it: no bug of ours."""

SECONDS_BETWEEN_LINES = 10.0
"""How often progress is logged where there is no terminal; short work says nothing."""

_log = logging.getLogger(__name__)


def setup(*, is_first: bool | None = None) -> None:
    """Send logs to standard error: INFO from the first process, warnings from the others, libraries quiet.

    Args:
        is_first: Whether this is the first of processes that do the same; None: as a launcher numbers them.
    """
    if is_first is None:
        is_first = ranks.rank() == 0
    least = logging.INFO if is_first else logging.WARNING
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S"))
    # A filter and not levels: some libraries set their own logger to DEBUG when they are imported.
    handler.addFilter(lambda record: record.levelno >= (least if _is_ours(record.name) else logging.WARNING))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)  # DeepSpeed has one of its own
    # These are about library internals that a user of the pipeline can do nothing about.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # unset, it warns of forks, of which we make none
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", module=r"sklearn\.")  # per-class metrics of classes too small to be predicted


def _is_ours(name: str) -> bool:
    return name.split(".", maxsplit=1)[0] in ("anna", "stages")


def run_stage(name: str, main: Callable[[], Mapping[str, int] | None]) -> None:
    """Run a stage's `main`, write what it cost to `metrics/cost/<name>.json`, and end a bad input with one line.

    What `main` returns, such as how many results of an earlier run it reused, is said and written beside the cost.
    Exits with status 1 on `InputError`, if the stage runs already and where room or access is denied, with 130 on
    Ctrl-C; any other exception is a bug and keeps its traceback. Warns if params.yaml was edited meanwhile.
    """
    setup()
    ranks.end_with_starter()
    keep_freed_memory()
    started, params = time.perf_counter(), _params()
    _log.info("%s starts (Python %s, %d CPUs)", name, platform.python_version(), num_cpus())
    try:
        with _alone(name), logging_redirect_tqdm():
            counts = main() or {}
    except InputError as error:
        _log.error("%s: %s", name, error)
        sys.exit(1)
    except OSError as error:
        if error.errno not in DENIED:
            raise
        place = f"{error.filename}: " if error.filename else ""
        _log.error("%s: %s%s; make room, or give access, and run again", name, place, error.strerror)
        sys.exit(1)
    except KeyboardInterrupt:
        _log.error("%s: interrupted", name)
        sys.exit(130)
    if _params() != params:
        _log.warning(
            "params.yaml was edited while %s ran, which has used the values before; DVC records those after. If %s "
            "reads what has changed, put it back and run: dvc commit -f %s, or: dvc repro -f -s %s",
            *[name] * 4,
        )
    seconds = time.perf_counter() - started
    if counts:
        _log.info("%s: %s", name, ", ".join(f"{count:,} results {what}" for what, count in counts.items()))
    _log.info("%s ends after %.1f s, peak memory %.0f MiB", name, seconds, peak_memory_mib())
    if ranks.rank() == 0:
        write_cost(name, seconds, counts)


def _alone(name: str) -> AbstractContextManager[None]:
    """Hold the stage's lock, if this process acts for all of its ranks.

    DVC's own lock ends with DVC: if DVC alone was killed, the stage runs on, and a second one would write the same
    files.
    """
    is_held = ranks.rank() > 0 or ranks.STARTER in os.environ
    return nullcontext() if is_held else held(LOCKS / f"{name}.lock", f"runs {name}")


def _params() -> bytes:
    """Return params.yaml as it stands; nothing if there is none."""
    return PARAMS_FILE.read_bytes() if PARAMS_FILE.is_file() else b""


def write_cost(name: str, seconds: float, counts: Mapping[str, int] | None = None) -> None:
    """Record wall time, peak memory, hardware and counts of stage `name`."""
    COST_DIR.mkdir(parents=True, exist_ok=True)
    cost = {"seconds": round(seconds, 1), "peak_memory_mib": round(peak_memory_mib()), "cpus": num_cpus()}
    machines = ranks.num_machines()
    cost |= gpus() | ({"machines": machines} if machines > 1 else {}) | dict(counts or {})
    (COST_DIR / f"{name}.json").write_text(json.dumps(cost, indent=2) + "\n", encoding="utf-8")


def gpus() -> dict[str, Any]:
    """Return the names of this machine's NVIDIA GPUs and the sum of their power limits in W; nothing without one."""
    if shutil.which("nvidia-smi") is None:
        return {}
    query = ["nvidia-smi", "--query-gpu=name,power.limit", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout.splitlines()
    except (subprocess.SubprocessError, OSError) as error:
        _log.warning("nvidia-smi failed (%s); the cost is written without GPUs", error)
        return {}
    rows = [line.rsplit(",", 1) for line in found if "," in line]
    names, limits = [name.strip() for name, _ in rows], [limit.strip() for _, limit in rows]
    # A card that does not tell its limit says "[N/A]": then the sum is not known.
    watts = sum(map(float, limits)) if all(limit.replace(".", "", 1).isdigit() for limit in limits) else 0
    return ({"gpus": names} if names else {}) | ({"gpu_watts": round(watts)} if watts else {})


def peak_memory_mib() -> float:
    """Return the largest resident memory so far of this process or of any child that has ended, in MiB."""
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024


def progress(items: Iterable[T], *, unit: str, desc: str, total: int | None = None) -> Iterator[T]:
    """Yield `items` with a progress bar on a terminal, or a log line every few seconds elsewhere."""
    if sys.stderr.isatty():
        yield from tqdm(items, unit=unit, desc=desc, total=total)
        return
    if total is None and isinstance(items, Sized):
        total = len(items)
    started = said = time.perf_counter()
    for count, item in enumerate(items, start=1):
        yield item
        now = time.perf_counter()
        if total and now - said >= SECONDS_BETWEEN_LINES:
            said, seconds = now, now - started
            _log.info("%s: %d/%d %s, %.0f s, %.1f %s/s", desc, count, total, unit, seconds, count / seconds, unit)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Log how long a part of a stage took."""
    started = time.perf_counter()
    yield
    _log.info("%s: %.1f s", what, time.perf_counter() - started)
