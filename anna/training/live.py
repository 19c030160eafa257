"""What a run says while it runs: DVCLive's files, for `dvc plots show`, editors, and whatever else reads them."""

import logging
from collections.abc import Sequence
from pathlib import Path

from scmrepo.exceptions import SCMError

from anna.training.checkpoint import Record

_log = logging.getLogger(__name__)


def start(folder: Path, records: Sequence[Record]) -> "Monitor | None":
    """Return a monitor, or None, with a warning, in a git repository without a commit, which DVCLive refuses."""
    try:
        return Monitor(folder, records)
    except SCMError as error:
        _log.warning("no live metrics in %s (%s): make a first commit to see them", folder, error)
        return None


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
