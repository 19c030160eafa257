import base64
import hashlib
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from anna import origins
from anna.errors import InputError
from anna.origins import FilesOrigin, HubOrigin, Origin, WheelOrigin

REVISION = "a" * 40


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index of one wheel, toy_data 1.0, in place of the real one; the working folder is empty."""
    folder = tmp_path / "index"
    folder.mkdir()
    files = {
        "toy_data/rows.txt": "one\ntwo\n",
        "toy_data-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: toy-data\nVersion: 1.0\n"
        "Requires-Dist: nowhere\n",
        "toy_data-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},{len(text)}\n"
        for name, text in files.items()
    )
    with zipfile.ZipFile(folder / "toy_data-1.0-py3-none-any.whl", "w") as archive:
        for name, text in {**files, "toy_data-1.0.dist-info/RECORD": record}.items():
            archive.writestr(name, text)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


@pytest.fixture
def wheel(index: Path) -> Callable[..., WheelOrigin]:
    def _wheel(**changes: str) -> WheelOrigin:
        sha256 = origins.sha256(index / "toy_data-1.0-py3-none-any.whl")
        fields = {"package": "toy-data", "version": "1.0", "sha256": sha256, "path": "toy_data/rows.txt", **changes}
        return WheelOrigin.model_validate({"kind": "wheel", **fields})

    return _wheel


def test_wheel_is_fetched_once_and_never_installed(
    wheel: Callable[..., WheelOrigin], index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert origins.fetch(wheel()).read_text() == "one\ntwo\n"
    monkeypatch.setenv("PIP_FIND_LINKS", str(index / "gone"))
    assert origins.fetch(wheel()).read_text() == "one\ntwo\n"
    with pytest.raises(ImportError):
        __import__("toy_data")


def test_what_several_processes_want_at_once_is_made_by_one(index: Path) -> None:
    made = []

    def make(temporary: Path) -> None:
        made.append(temporary)
        time.sleep(0.05)
        temporary.mkdir()
        (temporary / "file").touch()

    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: origins.made_once("model", make), range(8)))
    assert len(made) == 1
    assert set(folders) == {origins.INPUTS_DIR / "model"}
    assert (folders[0] / "file").is_file()


def test_wheel_with_another_hash_is_refused(wheel: Callable[..., WheelOrigin]) -> None:
    with pytest.raises(InputError, match=f"has sha256 {wheel().sha256}, pinned is {'0' * 64}; nothing was unpacked"):
        origins.fetch(wheel(sha256="0" * 64))
    assert not [path for path in Path().glob("runs/inputs/*") if path.is_dir()]


def test_missing_version_is_refused(wheel: Callable[..., WheelOrigin]) -> None:
    with pytest.raises(InputError, match=r"toy-data==9\.9 did not arrive .*check the version and the network"):
        origins.fetch(wheel(version="9.9"))


def test_missing_path_in_a_wheel_is_refused(wheel: Callable[..., WheelOrigin]) -> None:
    with pytest.raises(InputError, match=r"toy-data 1\.0 has no 'toy_data/none'; correct the path"):
        origins.fetch(wheel(path="toy_data/none"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, r"toy_data/rows\.txt is missing; delete runs/inputs/toy-data-1\.0-\w+, and it is fetched again"),
        (
            lambda path: next(path.parents[1].glob("*/RECORD")).unlink(),
            r"toy-data-1\.0-\w+ lacks its list of files; delete it",
        ),
        (lambda path: path.write_text("one\n"), r"toy_data/rows\.txt has 4 bytes, not 8; delete "),
    ],
    ids=["missing", "no list", "cut"],
)
def test_what_is_no_longer_whole_is_refused(
    damage: Callable[[Path], None], message: str, wheel: Callable[..., WheelOrigin]
) -> None:
    path = origins.fetch(wheel())
    damage(path)
    with pytest.raises(InputError, match=message):
        origins.fetch(wheel())
    shutil.rmtree(path.parents[1])
    assert origins.fetch(wheel()).read_text() == "one\ntwo\n"


def test_what_a_killed_process_left_is_removed(wheel: Callable[..., WheelOrigin]) -> None:
    left = origins.INPUTS_DIR / f".{origins._wheel_name(wheel())}.1234.tmp"
    left.mkdir(parents=True)
    (left / "half").touch()
    origins.fetch(wheel())
    assert [path.suffix for path in origins.INPUTS_DIR.glob(".*")] == [".lock"]


def test_files(tmp_path: Path) -> None:
    assert origins.fetch(FilesOrigin(kind="files", path=tmp_path)) == tmp_path
    with pytest.raises(InputError, match="does not exist; correct the path"):
        origins.fetch(FilesOrigin(kind="files", path=tmp_path / "none"))


def test_model_of_the_hub_from_the_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models/owner/name").mkdir(parents=True)
    monkeypatch.setenv(origins.HUB_DIR_VARIABLE, str(tmp_path))
    origin = HubOrigin(kind="hub", repo="owner/name", revision=REVISION)
    assert origins.fetch_model(origin) == tmp_path / "models/owner/name"
    assert origins.hub_mirror("datasets", "owner/name") is None


@pytest.mark.parametrize("root", ["nowhere", "~/nowhere"])
def test_a_mirror_that_is_no_folder_is_refused(root: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(origins.HUB_DIR_VARIABLE, root)
    with pytest.raises(InputError, match=rf"ANNA_HUB_DIR is '{root}', which is no folder; correct it, or unset it"):
        origins.hub_mirror("models", "owner/name")
    (tmp_path / "nowhere" / "models" / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    found = origins.hub_mirror("models", "owner/name")
    assert found is not None
    assert found.samefile(tmp_path / "nowhere/models/owner/name")


def test_of_the_hub_the_pinned_revision_and_nothing_that_runs_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def fetch(repo: str, **options: Any) -> str:
        asked.update(options, repo=repo)
        return str(Path.cwd())

    monkeypatch.delenv(origins.HUB_DIR_VARIABLE, raising=False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    origins.fetch_model(HubOrigin(kind="hub", repo="owner/name", revision=REVISION))
    assert (asked["repo"], asked["revision"]) == ("owner/name", REVISION)
    allowed = asked["allow_patterns"]
    names = ["model.safetensors", "tokenizer.json", "pytorch_model.bin", "modeling_x.py", "weights.pt", "a.pkl"]
    passed = [name for name in names if any(fnmatch(name, pattern) for pattern in allowed)]
    assert passed == ["model.safetensors", "tokenizer.json"]


def test_what_was_made_in_part_is_not_there(index: Path) -> None:
    def make(temporary: Path) -> None:
        temporary.mkdir()
        raise InputError("broken off")

    with pytest.raises(InputError, match="broken off"):
        origins.made_once("model", make)
    assert not (origins.INPUTS_DIR / "model").exists()


@pytest.mark.parametrize(
    "named",
    [
        {},
        {"XDG_CACHE_HOME": "/caches"},
        {"HF_HOME": "~/models", "XDG_CACHE_HOME": "/caches"},
        {"HF_HUB_CACHE": "$HOME/models", "HF_HOME": "/other"},
        {"HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/other"},
    ],
    ids="+".join,
)
def test_the_hubs_cache_is_where_its_client_has_it(named: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    asked = "from huggingface_hub.constants import HF_HUB_CACHE; print(HF_HUB_CACHE)"
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout.strip()
    assert origins._hub_cache() == Path(told)


def test_model_that_does_not_arrive_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def _fail(*_: object, **__: object) -> str:
        raise OSError("no route\nto host")

    monkeypatch.delenv(origins.HUB_DIR_VARIABLE, raising=False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", _fail)
    with pytest.raises(
        InputError, match=r"owner/name@aaaaaaaa did not arrive from the hub .no route to host.; .*put it at \$ANNA_HUB"
    ):
        origins.fetch_model(HubOrigin(kind="hub", repo="owner/name", revision=REVISION))


@pytest.mark.parametrize(
    "origin",
    [
        {"kind": "hub", "repo": "a/b", "revision": "main"},
        {"kind": "wheel", "package": "a", "version": "1", "sha256": "abc", "path": "p"},
        {"kind": "ftp", "path": "x"},
        {"kind": "files", "path": "x", "sha": "y"},
    ],
)
def test_unpinned_or_unknown_origins_are_refused(origin: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter[Origin](Origin).validate_python(origin)


def test_describe(wheel: Callable[..., WheelOrigin]) -> None:
    assert origins.describe(wheel()).startswith("toy-data==1.0 sha256:")
    hub = HubOrigin(kind="hub", repo="a/b", revision=REVISION)
    assert origins.describe(hub) == f"a/b@{REVISION[:12]}"
    assert origins.describe(hub.model_copy(update={"split": "eli5"})) == f"a/b@{REVISION[:12]} eli5"
    assert origins.describe(hub.model_copy(update={"name": "en", "split": "test"})) == f"a/b@{REVISION[:12]} en test"
    assert origins.describe(FilesOrigin(kind="files", path=Path("x/y"))) == "x/y"
