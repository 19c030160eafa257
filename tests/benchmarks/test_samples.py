"""New samples hold neither what the pipeline scores nor what training holds, and the table sets them side by side."""

import json
from pathlib import Path

from anna.corpus.decontaminate import HeldOutTexts
from anna.corpus.drops import DropLog
from anna.corpus.held_out import HeldOutTask, load_task
from anna.corpus.sources import Cleaning, HeldOutSource
from anna.scores import Score
from benchmarks.samples import fresh_samples, table


def load(path: Path, rows: int | None) -> HeldOutTask:
    source = HeldOutSource.model_validate(
        {
            "task": "T",
            "type": "Retrieval",
            "origin": {"kind": "files", "path": str(path)},
            "format": "jsonl",
            "columns": {"query": "query", "doc": "doc"},
            "rows": rows,
        }
    )
    return load_task(source, DropLog(), Cleaning(0.0, None, seed=1), num_examples=2)


def test_samples_are_disjoint_and_hold_nothing_that_was_scored_or_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_text("\n".join(json.dumps({"query": f"query {n}", "doc": f"article {n}"}) for n in range(30)))
    scored, whole = load(path, 5), load(path, None)
    assert [unit.text for unit in whole.units[:5]] == [unit.text for unit in scored.units]
    trained = [whole.units[6].text.upper(), whole.units[9].others[0]]
    samples = fresh_samples(whole, 5, HeldOutTexts(trained, None), 99)
    assert [len(sample.units) for sample in samples] == [5, 5, 5, 5], "30 - 2 examples - 5 scored - 2 trained on = 21"
    units = [unit for sample in samples for unit in sample.units]
    assert len(set(units)) == 20
    assert {*units}.isdisjoint([*scored.units, whole.units[6], whole.units[9]])
    assert {*map(str, samples[0].examples)} == {*map(str, scored.examples)}
    assert fresh_samples(whole, 5, HeldOutTexts(trained, None), 2) == samples[:2]
    assert fresh_samples(whole, 22, HeldOutTexts([], None), 99) == [], "fewer rows than a sample has"


def test_the_table_has_a_row_for_each_task_and_means_of_models_that_have_all() -> None:
    def score(model: str, task: str, kind: str, value: float) -> Score:
        return Score(model, "zero_shot", task, kind, "m", value)

    in_sight = [score("student", "A", "STS", 0.5), score("student", "B", "Retrieval", 0.7)]
    in_sight += [score("student", "unsampled", "STS", 0.1), score("bm25", "B", "Retrieval", 0.4)]
    first = [score("student", "A", "STS", 0.4), score("student", "B", "Retrieval", 0.6)]
    second = [score("student", "B", "Retrieval", 0.8), score("bm25", "B", "Retrieval", 0.2)]
    lines = table(in_sight, [first, second]).splitlines()
    assert lines[0].startswith("|  | samples | student, in sight | student, new | teacher, in sight | teacher, new |")
    assert lines[2] == "| A | 1 | 0.500 | 0.400 | – | – | – | – |"  # noqa: RUF001
    assert lines[3] == "| B | 2 | 0.700 | 0.700 ± 0.141 | – | – | 0.400 | 0.200 |"  # noqa: RUF001
    assert lines[4] == "| mean of categories |  | 0.600 | 0.550 | – | – | – | – |"  # noqa: RUF001
