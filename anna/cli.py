"""The `anna` command, for people: check params, plan a run, look into a finished one, or rank results.

Changes nothing but `runs/`. Runs in the project root, where `dvc repro` leaves tables and model.
"""

import argparse
import logging
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from anna import io, log, schemas
from anna.allocation import keep_freed_memory
from anna.errors import InputError
from anna.params import HELD_OUT, PARAMS_FILE, recorded

DATA, MODEL = Path("data"), Path("models/sentence-transformer")
CORPUS, FIGURE = DATA / "corpus.parquet", Path("runs/margins.svg")
RESULTS = Path("reports/mteb/anna__student/zero_shot")

_log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 1 after a message that says what was wrong, 130 after Ctrl-C."""
    arguments = _parser().parse_args(argv)
    log.setup()
    keep_freed_memory()
    try:
        _out(arguments.run(arguments))
    except InputError as error:
        sys.stderr.write(f"anna {arguments.command}: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return 130  # as a shell counts it
    except BrokenPipeError:
        # `anna why ... | head`: the reader has seen enough. Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno not in log.DENIED:
            raise
        sys.stderr.write(f"anna {arguments.command}: {error.filename or 'standard output'}: {error.strerror}\n")
        return 1
    return 0


def _in_project() -> None:
    """Refuse to look for a run's tables where there can be none."""
    if not PARAMS_FILE.is_file() and not DATA.is_dir():
        raise InputError(f"{Path.cwd()} has neither {PARAMS_FILE} nor {DATA}/; run from the project root")


def why(arguments: argparse.Namespace) -> str:
    """Return everything known about one training query."""
    from anna.reporting.why import describe, explain

    _in_project()
    return describe(explain(arguments.query))


def search(arguments: argparse.Namespace) -> str:
    """Return the documents of a task that are nearest to a text."""
    from anna.reporting import search as searching

    _in_project()
    corpus = io.read(CORPUS, schemas.CORPUS)
    hits = searching.search(MODEL, corpus, arguments.text, arguments.task, arguments.top)
    shown = [
        f"{place:>3}. {hit.score:.4f}  {hit.doc_id}\n     {textwrap.shorten(hit.text, 160, placeholder=' ...')}"
        for place, hit in enumerate(hits, start=1)
    ]
    return "\n".join(shown)


def leaderboard(arguments: argparse.Namespace) -> str:
    """Return where a folder of results stands among the public models."""
    from anna.evaluation import result_files, standings
    from anna.evaluation.leaderboard import BENCHMARK

    own = recorded("evaluate").load().values() if PARAMS_FILE.is_file() else {}
    is_of_run = arguments.folder.resolve().is_relative_to(Path("reports/mteb").resolve())
    if is_of_run and own.get("benchmark") == HELD_OUT:
        raise InputError(
            f"{arguments.folder} is of held-out samples (evaluate.benchmark is {HELD_OUT!r}), on which no public model "
            f'was scored; name a folder of results on "{BENCHMARK}", or train and evaluate with a preset whose '
            "evaluate.benchmark that is, such as presets/qwen3-0.6b.yaml"
        )
    scores, types = result_files.read_results(arguments.folder)
    return standings.describe(arguments.folder.as_posix(), scores, types)


def margins(arguments: argparse.Namespace) -> str:
    """Return what each margin of the filter would keep, and draw it to a file."""
    from anna.reporting import margins as showing
    from anna.teachers.calibration import of_run
    from anna.teachers.filtering import FilterParams

    params = FilterParams.load()
    if (arguments.rule or params.rule) == "none":
        raise InputError("filter.rule none has no margin; choose a rule, e.g.: anna margins --rule adaptive")
    calibration = of_run(DATA, params, arguments.rule)
    shown, figure = showing.table(calibration, arguments.task), showing.render(calibration).svg or b""
    io.write_text(FIGURE, figure.decode())
    return f"{shown}\n\nThe same as a figure: {FIGURE}"


def check(arguments: argparse.Namespace) -> str:
    """Return that no stage will refuse the params, as far as they alone tell, and that DVC can run them here."""
    from anna import check as checking
    from anna import readiness

    found = checking.check(arguments.params)
    readiness.check_project(Path.cwd())
    for refusal in readiness.refused_here(found):
        _log.warning("on this machine, after all teachers, train would refuse: %s", refusal)
    for change in readiness.changed_since(found, Path.cwd()):
        _log.warning(change)
    python = shutil.which("python")
    if python is None or not Path(python).parent.samefile(Path(sys.executable).parent):
        raise InputError(
            f"stages run with the `python` of the path, which is {python or 'none'}, but anna is installed for "
            f"{sys.executable}; run: source {Path(sys.executable).parent}/activate"
        )
    return f"{arguments.params}: every section is right"


def plan(arguments: argparse.Namespace) -> str:
    """Return what each stage will take, and whether it fits; nothing is run or fetched."""
    from anna import check as checking
    from anna.planning import plan as planning
    from anna.planning.settings import Settings

    rows = dict(_rows_of_task(text) for text in arguments.rows)
    settings = Settings.of(checking.check(arguments.params))
    return planning.plan(settings, arguments.params, arguments.hardware, rows, arguments.share)


def _rows_of_task(text: str) -> tuple[str, int]:
    name, _, number = text.rpartition("=")
    if not name or not number.isdecimal():
        raise InputError(f"--rows {text}: expected TASK=NUMBER, e.g. NQ=58568")
    return name, int(number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="anna", description="Check params, plan a run, look into one, or rank results."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    told = commands.add_parser("why", help="everything known about one query: scores, verdicts, reasons")
    told.add_argument("query", help="its id in data/queries.parquet, e.g. BoolQ:q:01188218a77882f4, or its whole text")
    told.set_defaults(run=why)
    tried = commands.add_parser("margins", help="what each margin of the filter would keep, from the labels alone")
    tried.add_argument("--rule", choices=("adaptive", "percent", "absolute"), help="(default: filter.rule)")
    tried.add_argument("--task", default="all", help="whose counts are shown in full (default: %(default)s)")
    tried.set_defaults(run=margins)
    found = commands.add_parser(
        "search", help="search a task's documents with the exported model; the first search encodes them"
    )
    found.add_argument("text", help="the query, bare: the task's instruction is added")
    found.add_argument("--task", help="whose documents are searched; may be left out where there is only one")
    found.add_argument("--top", type=int, default=5, help="documents shown (default: %(default)s)")
    found.set_defaults(run=search)
    checked = commands.add_parser("check", help="all of params.yaml for all stages, before anything runs")
    _add_params(checked, "to check")
    checked.set_defaults(run=check)
    planned = commands.add_parser("plan", help="tokens, memory, disk and hours of every stage, before anything runs")
    _add_params(planned, "to plan for")
    planned.add_argument("--hardware", help="GPUs, e.g. h200x8 or l4; default: this machine, its speed measured now")
    planned.add_argument(
        "--share", type=float, help="of the GPUs' peak that models reach; with --hardware alone (default: 0.4)"
    )
    planned.add_argument(
        "--rows",
        action="append",
        default=[],
        metavar="TASK=NUMBER",
        help="rows of a training task, where you know better; may be given several times",
    )
    planned.set_defaults(run=plan)
    ranked = commands.add_parser("leaderboard", help="rank results on MTEB(eng, v2) among the public models")
    ranked.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=RESULTS,
        help="of <task>.json on MTEB(eng, v2), not of held-out samples (default: %(default)s)",
    )
    ranked.set_defaults(run=leaderboard)
    return parser


def _add_params(parser: argparse.ArgumentParser, use: str) -> None:
    parser.add_argument(
        "--params",
        "--preset",
        type=_params_file,
        default=PARAMS_FILE,
        metavar="FILE",
        help=f"{use}, or the name of one of presets/ (default: %(default)s)",
    )


def _params_file(text: str) -> Path:
    """Return the file that is named, or the preset of that name, as `make` takes it."""
    preset = Path("presets") / f"{text}.yaml"
    return preset if preset.is_file() and not Path(text).exists() else Path(text)


def _out(text: str) -> None:
    """Write to standard output; the one place of the project that does."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
