"""What a run says while it runs: DVCLive's files, for `dvc plots show`, editors, and whatever else reads them."""

from collections.abc import Sequence
from pathlib import Path

from anna.training.checkpoint import Record


class Monitor:
    """A folder that DVCLive writes: one file per metric, one row per step."""

    def __init__(self, folder: Path, records: Sequence[Record]) -> None:
        """Begin the folder anew, with the steps that were taken before this process."""
        from dvclive import Live  # imports DVC

        # It may touch neither git nor dvc.yaml: this is a stage of a pipeline, whose results are committed with care.
        self._live = Live(str(folder), save_dvc_exp=False, dvcyaml=None, report=None)
        for record in records:
            self._log(record)

    def write(self, record: Record) -> None:
        """Add a step."""
        self._log(record)
        self._live.next_step()

    def close(self) -> None:
        """Say that there are no more steps."""
        self._live.end()

    def _log(self, record: Record) -> None:
        self._live.step = int(record["step"])
        for name, value in record.items():
            if name != "step":
                self._live.log_metric(name, value)
