"""Score contenders on tasks with mteb, keep every result, and reuse those that nothing has changed for."""

import json
import logging
import math
import random
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import datasets
import mteb
import numpy as np
from mteb.abstasks.abstask import AbsTask
from mteb.results import TaskResult

from anna import io, log
from anna.errors import InputError, one_line
from anna.evaluation import data
from anna.evaluation.contenders import Contender
from anna.evaluation.mteb_model import PromptedModel, SearchModel
from anna.fingerprints import code_hash, content_hash, fingerprint
from anna.origins import hub_mirror
from anna.scores import Score

_LIBRARIES = (
    "mteb",
    "datasets",
    "torch",
    "transformers",
    "tokenizers",
    "sentence-transformers",
    "scikit-learn",
    "scipy",
    "numpy",
    "bm25s",
)
"""Whose versions are part of what results are stored under."""

_LOADER_BATCH = 1024
"""Texts per batch of mteb's data loader. Models make their own batches, by tokens."""

_log = logging.getLogger(__name__)


def evaluate_all(contenders: Sequence[Contender], tasks: Sequence[AbsTask], store: Path, results: Path) -> list[Score]:
    """Return the score of every contender on every task it can be scored on, in each of its modes.

    Args:
        contenders: In the order of the result.
        tasks: In the order of the result.
        store: Folder of results of all runs, by fingerprint: of model, prompt, task data, code and libraries. What is
            there is not computed again, so after a training change only the student is.
        results: Folder that gets this run's results as mteb keeps them, `anna__<model>/<mode>/<task>.json` and
            `model_meta.json`: the folder `results` of mteb's ResultCache, which reads it. Dates and durations are left
            out, so that equal scores are equal bytes.

    Raises:
        InputError: If a model has no prompt for a task, or one that leaves too little room for a text, a task's data
            cannot be had, or a score is not a number.
    """
    datasets.disable_progress_bars()
    jobs = [(c, [t for t in tasks if c.types is None or t.metadata.type in c.types]) for c in contenders]
    for contender, own in jobs:
        _check_prompts(contender, own)
    copies = {task.metadata.name: _copy_hash(task) for task in tasks}
    scores: list[Score] = []
    with io.atomic(results) as folder:
        for contender, own in jobs:
            scores.extend(_evaluate(contender, own, copies, store, folder))
    return scores


def _evaluate(
    contender: Contender, tasks: Sequence[AbsTask], copies: Mapping[str, str | None], store: Path, folder: Path
) -> list[Score]:
    """Score one contender and file its results under `folder`; `copies` as `_fingerprint` takes one, by task."""
    by_mode: dict[str, list[Score]] = {mode: [] for mode in contender.models}
    reused = 0
    with log.timed(f"{contender.name}: {len(tasks)} tasks"):
        for task in log.progress(tasks, unit="task", desc=contender.name):
            was_loaded = task.data_loaded
            for mode, model in contender.models.items():
                key = _fingerprint(contender, task, mode, copies[task.metadata.name])
                path = store / contender.name / f"{key}.json"
                is_known = _is_result(path)
                reused += is_known
                if not is_known:
                    _run(model, task, path)
                shutil.copyfile(path, _folder(folder, model) / f"{task.metadata.name}.json")
                by_mode[mode].append(_score(contender.name, mode, task, path))
            if task.data_loaded and not was_loaded:
                task.unload_data()
            if contender.embedder:
                contender.embedder.forget()
    if reused:
        _log.info("%s: %d results of an earlier run reused from %s", contender.name, reused, store)
    return [score for scores in by_mode.values() for score in scores]


def _is_result(path: Path) -> bool:
    """Return whether a whole result lies at `path`; a damaged one is told, and computed again."""
    if not path.is_file():
        return False
    try:
        TaskResult.from_disk(path)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        _log.warning("%s is damaged (%s) and is computed again", path, one_line(error))
        return False
    return True


def _folder(results: Path, model: PromptedModel | SearchModel) -> Path:
    """Return the folder where mteb looks for a model's results, with what it wants to know of the model."""
    meta = model.mteb_model_meta
    folder: Path = results / meta.model_name_as_path() / str(meta.revision)
    if not folder.is_dir():
        folder.mkdir(parents=True)
        facts = meta.to_dict()
        if meta.training_datasets is not None:
            facts["training_datasets"] = sorted(meta.training_datasets)  # mteb lists the set in any order
        io.write_json(folder / "model_meta.json", json.loads(json.dumps(facts, default=str)))
    return folder


def _run(model: PromptedModel | SearchModel, task: AbsTask, path: Path) -> None:
    """Score `model` on `task` with mteb and keep the result at `path`."""
    data.load_data(task)
    # Tasks draw from their own generators while they run: without this, a score depends on what ran before.
    task.rng_state, task.np_rng = random.Random(task.seed), np.random.default_rng(task.seed)
    result = mteb.evaluate(
        model,
        task,
        cache=None,
        co2_tracker=False,
        encode_kwargs={"batch_size": _LOADER_BATCH, "show_progress_bar": False},
        show_progress_bar=False,
    ).task_results[0]
    timeless = result.model_copy(update={"date": None, "evaluation_time": None, "evaluation_phases": None})
    with io.atomic(path) as temporary:
        timeless.to_disk(temporary)


def _score(name: str, mode: str, task: AbsTask, path: Path) -> Score:
    value = float(TaskResult.from_disk(path).get_score())
    metadata = task.metadata
    if not math.isfinite(value):
        raise InputError(
            f"{metadata.name}: {metadata.main_score} of {name} ({mode}) is {value}; its vectors are NaN or all equal. "
            f"Check the model, then delete {path}"
        )
    return Score(name, mode, metadata.name, metadata.type, metadata.main_score, value)


def _check_prompts(contender: Contender, tasks: Sequence[AbsTask]) -> None:
    """Name every task whose prompt is missing in a mode, or leaves no room, at once and before anything is computed."""
    faults: dict[str, InputError] = {}
    for task in tasks:
        try:
            for mode in contender.models:
                contender.identity(task.metadata.name, mode)
        except InputError as error:
            faults[task.metadata.name] = error
    if faults:
        raise InputError(f"{contender.name} lacks a usable prompt for {[*faults]}: {next(iter(faults.values()))}")


def _copy_hash(task: AbsTask) -> str | None:
    """Return a hash of the copy of the hub's repository that `data.load_data` reads, if there is one.

    Nobody checks its revision, so its bytes say which rows a score is of.
    """
    copy = hub_mirror("datasets", task.metadata.dataset["path"])
    return content_hash(copy) if copy is not None else None


def _fingerprint(contender: Contender, task: AbsTask, mode: str, copied: str | None) -> str:
    """Return a hash of all that decides the score. A difference can only cause a computation, never a stale score.

    Args:
        contender: What is scored.
        task: On what.
        mode: In what mode.
        copied: Hash of the task's data where they come from a copy of the hub's repository (`_copy_hash`).
    """
    metadata = task.metadata
    parts = {
        "model": contender.identity(metadata.name, mode),
        "task": [metadata.name, metadata.type, metadata.main_score, metadata.dataset, task.seed],
        "parts": [list(task.hf_subsets), list(task.eval_splits)],
        "copy": copied,
        "run": [code_hash(Path(file)) for file in (__file__, data.__file__)],
        "libraries": {name: version(name) for name in _LIBRARIES},
    }
    return fingerprint(parts)
