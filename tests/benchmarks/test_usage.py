"""Every benchmark starts: what it imports is there, and its usage is what its docstring says."""

import importlib
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if "def main" in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_starts_and_takes_the_options_of_its_docstring(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    assert module.__doc__ is not None
    assert f"python -m benchmarks.{name}" in module.__doc__
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit, match="0"):
        module.main()
    options = set(re.findall(r"--[a-z-]+", module.__doc__.partition("Usage:")[2]))
    assert options <= set(re.findall(r"--[a-z-]+", capsys.readouterr().out.partition("options:")[2]))
