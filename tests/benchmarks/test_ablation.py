"""What the ablation sets, and the tables that it prints."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from anna.errors import InputError
from anna.reporting.ablation import COLUMNS, read
from benchmarks import ablation

PARAMS: dict[str, Any] = yaml.safe_load((ablation.REPO / "params.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("variant", [name for name in ablation.VARIANTS if name != ablation.DEFAULT])
def test_each_variant_differs_from_the_default_in_all_that_it_sets(variant: str) -> None:
    settings = ablation.VARIANTS[variant]
    for number in range(len(settings)):
        others = settings[:number] + settings[number + 1 :]
        assert ablation.changed(PARAMS, settings) != ablation.changed(PARAMS, others)


def test_values_are_read_as_yaml_and_the_params_given_stay_as_they_are() -> None:
    params = {"train": {"seed": 17, "first": {"epochs": 6}}}
    settings = ["train.seed=null", "train.first.epochs=1e0"]
    assert ablation.changed(params, settings) == {"train": {"seed": None, "first": {"epochs": "1e0"}}}
    assert params["train"]["seed"] == 17


@pytest.mark.parametrize("setting", ["train.sede=1", "trian.seed=1", "seed=1", "train.first.epochs=1"])
def test_a_key_that_is_none_is_refused(setting: str) -> None:
    with pytest.raises(InputError, match=rf"^{setting}: params\.yaml has no {setting[:-2]}$"):
        ablation.changed({"train": {"seed": 17, "first": None}}, [setting])


def test_tables_have_mean_and_spread_and_the_difference_of_each_seed_to_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(name: str, params: dict[str, Any], threads: int) -> dict[str, float]:
        assert threads >= 1
        base = {17: 0.5, 18: 0.6}[params["train"]["seed"]]
        is_default = name.startswith("the-default")
        assert is_default == bool(params["train"]["max_examples"])
        return {"mean": base if is_default else base - 0.1, "STS": 0.7}

    monkeypatch.setattr(ablation, "REPO", tmp_path)
    monkeypatch.setattr(ablation, "FOLDER", tmp_path)
    monkeypatch.setattr(ablation, "KEPT", tmp_path / "benchmarks" / "ablation.json")
    monkeypatch.setattr(ablation, "run", run)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS), encoding="utf-8")
    command = ["ablation", "--seeds", "17", "18", "--jobs", "2", "--only", "without examples in training"]
    monkeypatch.setattr(sys, "argv", [*command, "--set", "train.epochs=1"])
    ablation.main()
    assert not (tmp_path / "benchmarks").exists(), "the runs are of other parameters"
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", command)
    ablation.main()
    out = capsys.readouterr().out
    assert f"| {' | '.join(['', 'seeds', *COLUMNS])} |" in out
    assert f"| the default | 2 | 0.550 ± 0.071 |{' – |' * 5} 0.700 ± 0.000 |{' – |' * 2}" in out  # noqa: RUF001
    assert f"| without examples in training | 2 | 0.450 ± 0.071 |{' – |' * 5} 0.700 ± 0.000 |" in out  # noqa: RUF001
    assert f"| without examples in training | -0.100, -0.100 |{'  |' * 5} +0.000, +0.000 |" in out
    assert out.count("| the default |") == 1
    runs = read(tmp_path / "benchmarks" / "ablation.json", PARAMS)
    assert runs["without examples in training"] == {
        17: {"mean": 0.4, "STS": 0.7},
        18: {"mean": 0.5, "STS": 0.7},
    }


def test_a_run_that_is_kept_is_not_repeated_and_other_params_are_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies: list[Path] = []

    def copied(folder: Path, **_: object) -> None:
        copies.append(folder)
        (folder / ".dvc").mkdir(parents=True, exist_ok=True)
        (folder / "metrics").mkdir(exist_ok=True)
        (folder / "metrics" / "mteb.json").write_text('{"student": {"mean": 0.5}}', encoding="utf-8")

    monkeypatch.setattr(ablation, "FOLDER", tmp_path)
    monkeypatch.setattr(ablation, "copy_project", copied)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    dvc = tmp_path / "bin" / "dvc"
    dvc.write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    dvc.chmod(0o755)
    monkeypatch.setattr(ablation, "project_files", list)
    for margin in (1, 1, 2):
        assert ablation.run("a", {"filter": {"margin": margin}}, threads=1) == {"mean": 0.5}
    assert len(copies) == 2
    dvc.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"^a: dvc checkout --with-deps filter failed in .*; see .*\.log$"):
        ablation.run("a", {"filter": {"margin": 3}}, threads=1)
