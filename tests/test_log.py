"""What happens around a stage."""

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from anna import log, ranks
from anna.errors import InputError


def test_a_stage_leaves_its_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    log.run_stage("label", lambda: None)
    cost = json.loads((tmp_path / "metrics/cost/label.json").read_text())
    assert set(cost) - {"gpus", "gpu_watts"} == {"seconds", "peak_memory_mib", "cpus"}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("NVIDIA H200, 700.00\\nNVIDIA H200, 650.50", {"gpus": ["NVIDIA H200"] * 2, "gpu_watts": 1350}),
        ("Some Card, [N/A]", {"gpus": ["Some Card"]}),
        ("No devices were found", {}),
    ],
)
def test_gpus_and_their_power_limit_are_part_of_the_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, expected: dict[str, object]
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf '{told}\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert log.gpus() == expected
    monkeypatch.chdir(tmp_path)
    for name in ranks.TOLD:
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("WORLD_SIZE", "16")
    monkeypatch.setenv("LOCAL_SIZE", "8")  # as deepspeed says it
    log.write_cost("train", 3.0)
    cost = json.loads((tmp_path / "metrics/cost/train.json").read_text())
    assert {name: cost[name] for name in ("gpus", "gpu_watts", "machines") if name in cost} == expected | {
        "machines": 2
    }


def test_a_broken_tool_costs_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexit 9\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert log.gpus() == {}


def test_what_a_stage_reused_is_said_and_written_beside_its_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(log, "setup", lambda: None)  # it would take the place of pytest's handler
    with caplog.at_level(logging.INFO, "anna.log"):
        log.run_stage("rerank", lambda: {"reused": 5039, "computed": 51})
    assert "rerank: 5,039 results reused, 51 results computed" in caplog.messages
    cost = json.loads((tmp_path / "metrics/cost/rerank.json").read_text())
    assert (cost["reused"], cost["computed"]) == (5039, 51)


def test_bad_input_ends_with_one_line_and_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(log, "setup", lambda: None)  # it would take the place of pytest's handler

    def main() -> None:
        raise InputError("params.yaml: x is 3, expected 4; correct it")

    with pytest.raises(SystemExit) as raised, caplog.at_level(logging.ERROR, "anna.log"):
        log.run_stage("label", main)
    assert raised.value.code == 1
    assert caplog.messages == ["label: params.yaml: x is 3, expected 4; correct it"]
    assert not (tmp_path / "metrics").exists()


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (
            OSError(28, "No space left on device", "data/x"),
            1,
            "label: data/x: No space left on device; make room, or give",
        ),
        (OSError(28, "No space left on device"), 1, "label: No space left on device; make room, or give access"),
        (KeyboardInterrupt(), 130, "label: interrupted"),
    ],
)
def test_what_the_system_or_the_user_ends_has_one_line(
    error: BaseException,
    status: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(log, "setup", lambda: None)

    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as raised, caplog.at_level(logging.ERROR, "anna.log"):
        log.run_stage("label", main)
    assert raised.value.code == status
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(said)


def test_a_stage_that_runs_already_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As when DVC alone was killed, and is started again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(log, "setup", lambda: None)
    said = "import time; from anna import log; log.run_stage('label', lambda: (print(1, flush=True), time.sleep(60)))"
    with subprocess.Popen([sys.executable, "-c", said], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "1\n"
        with pytest.raises(SystemExit) as raised, caplog.at_level(logging.ERROR, "anna.log"):
            log.run_stage("label", lambda: pytest.fail("runs twice"))
        log.run_stage("filter", lambda: None)
        other.kill()
    assert raised.value.code == 1
    assert re.fullmatch(rf"label: process {other.pid} runs label already, .*label\.lock.*end it", caplog.messages[0])
    log.run_stage("label", lambda: None)


def test_a_rank_that_a_stage_started_needs_no_lock_and_ends_with_it(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as starter:
        program = "import time; from anna import log; log.run_stage('train', lambda: time.sleep(60))"
        environment = {**os.environ, ranks.STARTER: str(starter.pid)}
        with subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, env=environment) as rank:
            with pytest.raises(subprocess.TimeoutExpired):
                rank.wait(5)
            starter.kill()
            starter.wait()
            assert rank.wait(10) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("is_edited", [False, True])
def test_params_that_are_edited_while_a_stage_runs_are_told(
    is_edited: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(log, "setup", lambda: None)
    path = tmp_path / "params.yaml"
    path.write_text("filter: {margin: 0.1}", encoding="utf-8")

    def main() -> None:
        path.write_text("filter: {margin: 0.2}" if is_edited else "filter: {margin: 0.1}", encoding="utf-8")

    log.run_stage("filter", main)
    assert ("params.yaml was edited while filter ran" in caplog.text) == is_edited


def test_a_bug_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ZeroDivisionError):
        log.run_stage("label", lambda: 1 / 0)  # type: ignore[arg-type, return-value]


def test_progress_yields_everything_and_says_how_far_it_is(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(log.progress(range(25), unit="doc", desc="reading")) == list(range(25))
    assert caplog.messages == []
    monkeypatch.setattr(log, "SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO, "anna.log"):
        assert list(log.progress(range(25), unit="doc", desc="reading")) == list(range(25))
    assert len(caplog.messages) == 25
    assert caplog.messages[-1].startswith("reading: 25/25 doc")
