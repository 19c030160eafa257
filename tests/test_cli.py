"""The command for people: what it prints, and one line where it cannot."""

import errno
from pathlib import Path

import pytest
import yaml

from anna import cli, io, schemas
from tests.teachers.conftest import make_toy, table
from tests.teachers.test_filtering import LABELS, SETTINGS


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_tables() -> None:
    query = {"query_id": "T:q:1", "task": "T", "kind": "retrieval", "split": "train", "text": "who", "label": None}
    document = {"doc_id": "T:d:1", "task": "T", "text": "somebody", "label": None}
    for name, schema, row in (("queries", schemas.QUERIES, query), ("corpus", schemas.CORPUS, document)):
        table = schema.empty_table().from_pylist([row], schema=schema)
        io.write(Path(f"data/{name}.parquet"), table, schema)


def test_why_prints_the_query(capsys: pytest.CaptureFixture[str]) -> None:
    write_tables()
    assert cli.main(["why", "T:q:1"]) == 0
    assert capsys.readouterr().out.startswith("T:q:1  (T, retrieval, train)\n  who\n")


def test_a_bad_query_is_one_line_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    write_tables()
    assert cli.main(["why", "T:q:9"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "anna why: query 'T:q:9' is not in data/queries.parquet; did you mean 'T:q:1'?\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/.cache/mteb"), "/.cache/mteb: Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device"), "standard output: No space left on device"),
    ],
)
def test_what_the_system_denies_is_one_line_and_status_1(
    error: OSError, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "_out", deny)
    write_tables()
    assert cli.main(["why", "T:q:1"]) == 1
    assert capsys.readouterr().err == f"anna why: {said}\n"


def test_search_without_a_model_says_how_to_make_one(capsys: pytest.CaptureFixture[str]) -> None:
    write_tables()
    assert cli.main(["search", "who", "--task", "T"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_search_prints_hits(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from anna.reporting import search

    write_tables()
    monkeypatch.setattr(search, "search", lambda *_: [search.Hit("T:d:1", "somebody " * 40, 0.51234)])
    assert cli.main(["search", "who"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  1. 0.5123  T:d:1"
    assert lines[1].endswith(" ...")


def test_leaderboard_ranks_a_folder_of_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.evaluation.test_result_files import write

    write(tmp_path / "mine", "STS12", {"default": 0.99})
    write(tmp_path / "mine", "STS13", {"default": 0.98})
    assert cli.main(["leaderboard", "mine"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ranked on 2 of the 41 tasks of MTEB(eng, v2), among 183 public models")
    assert "    1    98.50    98.50  mine  <" in lines
    assert any(line.split() == ["STS", "98.50", "86.11"] for line in lines), "the published mean of the two tasks"
    assert cli.main(["leaderboard"]) == 1
    assert capsys.readouterr().err.startswith("anna leaderboard: reports/mteb/anna__student/zero_shot is no folder; ")
    cli.RESULTS.mkdir(parents=True)
    assert cli.main(["leaderboard"]) == 1
    assert capsys.readouterr().err.startswith(
        "anna leaderboard: reports/mteb/anna__student/zero_shot has no result file"
    )


def test_held_out_samples_are_not_ranked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.evaluation.test_result_files import write

    Path("params.yaml").write_text(yaml.safe_dump({"evaluate": {"benchmark": "held_out"}}), encoding="utf-8")
    write(tmp_path / cli.RESULTS, "STSBenchmark", {"default": 0.68}, revision="5a" * 20)
    assert cli.main(["leaderboard"]) == 1
    assert capsys.readouterr().err == (
        "anna leaderboard: reports/mteb/anna__student/zero_shot is of held-out samples (evaluate.benchmark is "
        "'held_out'), on which no public model was scored; name a folder of results on "
        '"MTEB(eng, v2)", or train and evaluate with a '
        "preset whose evaluate.benchmark that is, such as presets/qwen3-0.6b.yaml\n"
    )
    other = tmp_path / cli.RESULTS.parent.parent / "anna__teacher" / "zero_shot"
    write(other, "STSBenchmark", {"default": 0.68}, revision="5a" * 20)
    assert cli.main(["leaderboard", str(other)]) == 1
    assert f"{other} is of held-out samples" in capsys.readouterr().err, "wherever it is seen from, whatever model"
    write(tmp_path / "mine", "STS12", {"default": 0.99})
    assert cli.main(["leaderboard", "mine"]) == 0


def test_a_preset_is_named_as_make_takes_it(capsys: pytest.CaptureFixture[str]) -> None:
    Path("presets").mkdir()
    Path("presets/small.yaml").write_text("a: [", encoding="utf-8")
    for name in ("small", "presets/small.yaml"):
        assert cli.main(["check", "--preset", name]) == 1
        assert capsys.readouterr().err.startswith("anna check: presets/small.yaml is not ")
    assert cli.main(["check", "--preset", "large"]) == 1
    assert capsys.readouterr().err.startswith("anna check: large does not exist in ")


def test_an_interrupt_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(arguments: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "why", stop)
    assert cli.main(["why", "T:q:1"]) == 130
    assert capsys.readouterr().err == "\n"


def test_margins_prints_the_table_and_draws_it(capsys: pytest.CaptureFixture[str]) -> None:
    toy = make_toy()
    for name, part, schema in (
        ("corpus", toy.corpus, schemas.CORPUS),
        ("queries", toy.queries, schemas.QUERIES),
        ("qrels", toy.qrels, schemas.QRELS),
        ("labels", table(schemas.LABELS, LABELS), schemas.LABELS),
    ):
        io.write(Path(f"data/{name}.parquet"), part, schema)
    Path("params.yaml").write_text(yaml.safe_dump({"filter": SETTINGS}), encoding="utf-8")
    assert cli.main(["margins", "--task", "A"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("rule absolute, ")
    assert "\nA: 2 queries\n" in printed
    assert printed.endswith("The same as a figure: runs/margins.svg\n")
    assert Path("runs/margins.svg").read_text(encoding="utf-8").rstrip().endswith("</svg>")
    Path("params.yaml").write_text(yaml.safe_dump({"filter": SETTINGS | {"rule": "none"}}), encoding="utf-8")
    assert cli.main(["margins"]) == 1
    assert "choose a rule, e.g.: anna margins --rule adaptive" in capsys.readouterr().err
    assert "* as set" in printed
    assert cli.main(["margins", "--rule", "percent"]) == 0
    assert "* as set" not in capsys.readouterr().out, "of another rule none is"


def test_a_command_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main([])
    assert stopped.value.code == 2
    assert "why" in capsys.readouterr().err
