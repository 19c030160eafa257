"""What a run says of itself."""

from pathlib import Path

from anna.schemas import CURVE
from anna.training.checkpoint import Record
from anna.training.results import Outputs, save_records, summary


def records() -> list[Record]:
    """Ten steps, validated before the first, at the fifth and at the tenth."""
    plain = {name: 1.0 for name in CURVE} | {"task": "A", "tokens_per_second": 3.0}
    return [
        {**plain, "step": n + 1, "queries": n + 1, "loss": 10.0 - n, "tokens": 100, "tokens_saved": n}
        | ({"ndcg_at_10": 0.5 + n / 100} if n % 5 == 4 else {})
        | ({"ndcg_at_10_before": 0.4} if n == 0 else {})
        for n in range(10)
    ]


def test_summary_compares_the_first_and_the_last_tenth_and_says_what_was_kept() -> None:
    got = summary(records(), {"steps": 3}, 10, 5, 0.123)
    assert (got["loss_first_tenth"], got["loss_last_tenth"]) == (10.0, 1.0)
    assert (got["steps"], got["queries"], got["last_layer_first"]) == (10, 10, {"steps": 3})
    assert (got["tokens"], got["tokens_saved"]) == (1000, 45)
    assert (got["kept_step"], got["ndcg_at_10_before"], got["ndcg_at_10"]) == (5, 0.4, 0.54)
    assert not {"ndcg_at_10", "last_layer_first"} & summary(records()[:4], {}, 10, 4, 0.123).keys()


def test_the_files_hold_what_a_second_run_gives_again(tmp_path: Path) -> None:
    names = ("encoder", "train.json", "training.csv", "validation.csv")
    outputs = Outputs(*(tmp_path / name for name in names))
    save_records(outputs, records(), {"steps": 10})
    header, *rows = outputs.curve.read_text().splitlines()
    assert header == ",".join(CURVE)
    assert len(rows) == 10
    assert "tokens_per_second" not in header, "speed differs from run to run"
    assert outputs.validation.read_text() == "step,queries,ndcg_at_10\n0,0,0.4\n5,5,0.54\n10,10,0.59\n"
    save_records(outputs, records()[1:4], {"steps": 3})
    assert outputs.validation.read_text() == "step,queries,ndcg_at_10\n"
