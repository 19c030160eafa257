"""States of training runs that have come to their end, which are no longer needed once the model has been recorded."""

import shutil
from pathlib import Path

from anna import io

LATEST = "latest.json"
"""Names a run's last checkpoint."""


def remove_finished(root: Path, but: Path | None = None) -> None:
    """Delete the folders of runs that have taken their last step.

    Args:
        root: Holds the folders of all runs; it need not be there.
        but: One that stays.
    """
    for latest in root.glob(f"*/{LATEST}"):
        if latest.parent != but and io.read_json(latest).get("is_last"):
            latest.unlink()  # first, so that a half-deleted checkpoint is none
            shutil.rmtree(latest.parent)
