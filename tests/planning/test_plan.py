"""Plans of other sizes, and how they look."""

from dataclasses import replace
from pathlib import Path

import pytest

from anna import cli
from anna.errors import InputError
from anna.footprint import GIB
from anna.planning import report
from anna.planning.case import Case
from anna.planning.estimates import estimate
from anna.planning.hardware import parse, this_machine
from anna.planning.memory import LIBRARIES
from anna.planning.plan import make_case
from anna.planning.scoring import scoring_memory
from anna.training.recipe import AloneParams
from tests.planning.conftest import REPO, read_settings

PAPER = REPO / "presets/mistral-7b.yaml"


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path))


def paper(hardware: str) -> Case:
    settings = read_settings(PAPER)
    fewer = settings.evaluate.model_copy(update={"tasks": ["STS12"]})  # so that mteb's tasks are not all read
    return make_case(settings._replace(evaluate=fewer), PAPER, parse(hardware), {})


def test_the_paper_fits_on_eight_h200() -> None:
    case = paper("h200x8")
    found = {one.stage: one for one in estimate(case)}
    # BGE-EN-ICL's batches of 8 x 16 queries, eight documents each, of 1.2 to 1.7 million queries.
    assert 9_000 < int(found["train"].note.split()[0].replace(",", "")) < 14_000
    assert 20 * GIB < found["train"].memory < 32 * GIB
    assert 2 * 3600 < found["train"].seconds < 15 * 3600
    assert found["export"].disk == 4 * 7_110_660_096
    (line,) = report.verdict(case, list(found.values()), None)
    assert line.startswith("Verdict: fits. ")


def test_what_does_not_fit_comes_with_the_remedy() -> None:
    case = paper("rtx4090x8")
    lines = report.verdict(case, estimate(case), None)
    assert lines[0] == "Verdict: does not fit."
    (train,) = [line for line in lines if line.startswith("  - train")]
    assert train.startswith("  - train needs 28.0 GiB of 23.6 GiB per GPU: set ")
    assert "train.zero_stage: 3 (18.0 GiB)" in train
    (evaluate,) = [line for line in lines if line.startswith("  - evaluate")]
    assert evaluate == (
        "  - evaluate needs 62.7 GiB of 23.6 GiB per GPU: the weights alone take 39.7 GiB; use a larger GPU, or a "
        "smaller student.model"
    )


def test_fewer_tokens_at_once_are_told_where_they_are_enough() -> None:
    case = paper("a100-40x8")
    dense = case.settings.retrieve_dense.model_copy(update={"tokens_per_batch": 2**20})
    case = replace(case, settings=case.settings._replace(retrieve_dense=dense))
    lines = report.verdict(case, estimate(case), None)
    (line,) = [line for line in lines if line.startswith("  - retrieve_dense")]
    _, remedy, told = line.split(": ")
    tokens = int(told.split()[0])
    assert remedy == "set retrieve_dense.tokens_per_batch"
    assert told == f"{tokens} ({scoring_memory('retrieve_dense', case, tokens) / GIB:.1f} GiB)"
    assert scoring_memory("retrieve_dense", case, tokens) <= report.FREE_SHARE * 39.4 * GIB
    assert scoring_memory("retrieve_dense", case, 2 * tokens) > report.FREE_SHARE * 39.4 * GIB


def test_teachers_that_are_compared_in_float32_need_room_for_it() -> None:
    """Their orders are compared at the stage's end, after hours."""
    case = paper("l4x8")
    found = []
    for queries in (8, 0):
        dense = case.settings.retrieve_dense.model_copy(update={"check_queries": queries})
        rerank = case.settings.rerank.model_copy(update={"check_queries": queries})
        changed = replace(case, settings=case.settings._replace(retrieve_dense=dense, rerank=rerank))
        found.append({one.stage: one.memory for one in estimate(changed)})
    for stage, shape in (("retrieve_dense", case.models.dense), ("rerank", case.models.reranker)):
        at_once = getattr(case.settings, stage).tokens_per_batch
        wide, narrow = (own[stage] for own in found)
        assert wide - narrow == 2 * (shape.parameters + at_once * 3 * (shape.ffn + shape.heads * shape.head_dim))


def test_the_dense_teacher_as_a_baseline_needs_its_own_room() -> None:
    case = paper("rtx4090x8")
    large = replace(case, models=case.models._replace(dense=case.models.student, student=case.models.dense))
    lines = report.verdict(large, estimate(large), None)
    (evaluate,) = [line for line in lines if line.startswith("  - evaluate")]
    assert evaluate.endswith(": as for retrieve_dense, or leave teacher out of evaluate.baselines")
    alone = large.settings.evaluate.model_copy(update={"baselines": ()})
    without = replace(large, settings=large.settings._replace(evaluate=alone))
    assert not [line for line in report.verdict(without, estimate(without), None) if "evaluate" in line]


def test_the_start_of_the_last_layer_has_its_own_remedy() -> None:
    case = paper("rtx4090x8")
    first = AloneParams(epochs=1, batch_queries=256, learning_rate=1e-3)
    train = case.settings.train.model_copy(update={"last_layer_first": first, "zero_stage": 3})
    changed = replace(case, settings=case.settings._replace(train=train))
    assert changed.setup.start == 4 * case.models.student.parameters
    (line,) = [line for line in report.verdict(changed, estimate(changed), None) if line.startswith("  - train")]
    assert line == (
        "  - train needs 26.5 GiB of 23.6 GiB per GPU: set student.last_layer: pretrained, with "
        "train.last_layer_first: null (18.0 GiB)"
    )


def test_fewer_queries_than_two_a_rank_are_told() -> None:
    case = paper("h200x128")
    (line,) = [line for line in report.verdict(case, estimate(case), None) if "train.batch_queries" in line]
    assert line.startswith("  - train.batch_queries is 128, but there are 128 ranks, and each needs a query of every")
    assert line.endswith(": set it to 256 or more")
    few = case.settings.train.model_copy(update={"batch_queries": 8})
    idle = replace(paper("h200x8"), settings=case.settings._replace(train=few), ranks=4)
    assert "Training uses 4 of 8 GPUs; to use all: train.processes: 8, train.batch_queries: 16 or more" in report.notes(
        idle
    )


def test_what_train_would_refuse_is_said() -> None:
    case = paper("rtx4090x8")
    whole = case.settings.train.model_copy(update={"method": "full"})
    lines = report.verdict(full := replace(case, settings=case.settings._replace(train=whole)), estimate(full), None)
    assert lines[0] == "Verdict: does not fit. It is refused by `train`."


def test_a_full_disk_is_said() -> None:
    case = paper("h200x8")
    lines = report.verdict(case, estimate(case), 1 * GIB)
    assert "1.00 GiB are free here" in lines[1]


def test_the_memory_of_the_machine_itself_is_said_and_compared() -> None:
    case = paper("h200x8")
    (line,) = report.verdict(case, found := estimate(case), None)
    loading = 8 * (2 * 7_241_732_096 + LIBRARIES["train"])  # 8 ranks read all of Mistral-7B in bfloat16
    assert f" of disk and {loading / GIB:.0f} GiB of the machine's memory, training in " in line
    small = replace(case, hardware=case.hardware._replace(beside=50 * GIB))
    assert report.verdict(small, found, None)[1:] == [
        "  - ingest needs 61.1 GiB of the machine's 50.0 GiB: set fewer `rows`",
        "  - retrieve_bm25 needs 52.6 GiB of the machine's 50.0 GiB: set fewer `rows`",
        "  - export needs 53.7 GiB of the machine's 50.0 GiB: use a larger machine, or a smaller student.model",
        "  - train, while it loads texts and checkpoint, needs 115 GiB of the machine's 50.0 GiB: set train.processes "
        "to 3",
    ]
    large = replace(case, hardware=case.hardware._replace(beside=200 * GIB))
    assert report.verdict(large, found, None) == [line]


def test_gpus_that_stay_idle_and_machines_that_need_a_launcher() -> None:
    (said,) = [line for line in report.notes(paper("h200x16")) if "launcher" in line]
    assert said.startswith("16 ranks are more than one machine's")
    one = paper("h100x4")
    assert one.ranks == 4
    for case, said in (
        (one, "train.processes is 8, but there are 4 GPUs: set train.processes to 4"),
        (paper("h200"), "train.processes is 8, but there is 1 GPU: set train.processes to 1"),
    ):
        assert report.verdict(case, estimate(case), None)[1:] == [f"  - {said}"]


def test_that_gpus_are_taken_to_compute_in_bfloat16_is_told_where_they_are_not() -> None:
    case = paper("h200x8")
    rerank = case.settings.rerank.model_copy(update={"dtype": "float32"})
    wide = replace(case, settings=case.settings._replace(rerank=rerank))
    said = "GPUs are taken to compute in bfloat16, which is faster than the float32 of rerank.dtype."
    assert said in report.notes(wide)
    assert not [line for line in report.notes(case) if "bfloat16" in line]


def test_memory_to_keep_layers_is_told() -> None:
    (said,) = [line for line in report.notes(paper("h200x8")) if "compute layers again" in line]
    assert said.startswith("33% of training's operations")
    assert "train.gradient_checkpointing: false (86.2 GiB)" in said
    (said,) = [line for line in report.notes(paper("h100x8")) if "compute layers again" in line]
    assert "train.gradient_checkpointing: 13 (59.3 GiB)" in said
    assert not [line for line in report.notes(paper("rtx4090x8")) if "compute layers again" in line]


def test_the_table_by_stage_marks_what_is_configured() -> None:
    lines = report.zero_table(paper("h200x8"))
    assert [line.split()[0] for line in lines[1:6]] == ["ZeRO", "0", "1", "2", "3"]
    assert [line.endswith("<- configured") for line in lines[2:6]] == [False, True, False, False]
    assert lines[0].endswith("83.9 M of 7.11 G weights trained")


def test_hardware_by_name() -> None:
    eight = parse("H200x8", share=0.5)
    assert (eight.devices, eight.rate, eight.name) == (8, 494.5e12, "8 x h200")
    assert [parse(name).devices for name in ("a100-80", "rtx4090", "rtx4090x2")] == [1, 1, 2]
    with pytest.raises(InputError, match=r"--hardware v100x8: no such GPU is known; choose of a100-40, "):
        parse("v100x8")


@pytest.mark.parametrize("share", [0.0, -0.4, 1.01, float("nan")])
def test_a_share_of_the_peak_is_a_share(share: float) -> None:
    message = f"--share {share:g}: expected a share of the peak, above 0 and at most 1, e.g. 0.4"
    with pytest.raises(InputError, match=f"^{message}$"):
        parse("h200", share)


def test_this_machine_is_measured() -> None:
    here = this_machine(seconds=0.05)
    assert here.memory > GIB / 4
    assert 1e8 < here.rate < 1e16


@pytest.mark.parametrize("load", [0.1, 9.7])
def test_a_busy_machine_is_said_to_be_one(load: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("anna.machine.num_cpus", lambda: 2)
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    assert ("beside other work (load 9.7), so all times are too long" in this_machine(0.05).basis) == (load > 1)


def test_every_preset_can_be_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    for preset in sorted((REPO / "presets").glob("*.yaml")):
        assert make_case(read_settings(preset), preset, parse("h200"), {}).models.student.parameters > 1e6, preset


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    preset = str(REPO / "presets/smoke.yaml")
    assert cli.main(["plan", "--preset", preset, "--hardware", "l4", "--rows", "BoolQ=50"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{preset} on 1 x l4: 22.0 GiB each, 40% of 121 TFLOP/s dense bfloat16\n")
    assert "\nstage " in shown
    assert "\nVerdict: fits. " in shown
    assert cli.main(["plan", "--params", "nothing.yaml", "--hardware", "l4"]) == 1
    assert capsys.readouterr().err.startswith("anna plan: nothing.yaml does not exist in ")
    assert cli.main(["plan", "--params", preset, "--rows", "BoolQ"]) == 1
    assert capsys.readouterr().err == "anna plan: --rows BoolQ: expected TASK=NUMBER, e.g. NQ=58568\n"


def test_the_file_is_checked_before_it_is_planned_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = PAPER.read_text(encoding="utf-8").replace("zero_stage: 1", "zero_stage: 9").replace("depth: ", "depth: -")
    (tmp_path / "p.yaml").write_text(text, encoding="utf-8")
    assert cli.main(["plan", "--params", "p.yaml", "--hardware", "l4"]) == 1
    first, *others = capsys.readouterr().err.splitlines()
    assert first.startswith("anna plan: p.yaml: retrieve_bm25.depth: got -")
    assert "p.yaml: train.zero_stage: got 9: Input should be 0, 1, 2 or 3" in others


def test_a_share_without_hardware_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--params", str(REPO / "presets/smoke.yaml"), "--share", "0.3"]) == 1
    assert capsys.readouterr().err.startswith("anna plan: --share 0.3: is of the peak of --hardware, and ")
