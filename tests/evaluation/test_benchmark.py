"""All 41 tasks of mteb's own MTEB(eng, v2), scored on a few rows in their own format with the preset's prompts."""

import contextlib
import math
import re
import shutil
from collections import defaultdict
from pathlib import Path

import mteb
import pytest
from mteb.cache import ResultCache

from anna import scores
from anna.corpus.examples import load_examples
from anna.corpus.sources import Cleaning
from anna.evaluation import contenders, run
from anna.evaluation.encoding import EncodeSettings
from anna.evaluation.tasks import select_tasks
from anna.modeling.encoder import Encoder
from anna.modeling.encoder_config import EncoderConfig, PromptParams, TaskPrompt
from anna.modeling.student import load_student
from anna.prompts import Example
from stages.ingest import IngestParams
from tests.evaluation.mteb_data import write_all

BENCHMARK = "MTEB(eng, v2)"
PRESET = Path(__file__).parents[2] / "presets" / "mistral-7b.yaml"
PROMPTS = PromptParams.load(PRESET).tasks
DRAWN = Example("what was shown", "what it looked like")
"""Of the tasks whose examples are drawn from data; those written by hand are the preset's own."""
SETTINGS = EncodeSettings(max_tokens=64, tokens_per_batch=2048, dtype="float32")

pytestmark = pytest.mark.slow


def first_examples() -> dict[str, Example]:
    """Return an example of every task that the preset has any of, its texts cut to 40 characters."""
    ingest = IngestParams.load(PRESET)
    sources = [source for source in ingest.examples if source.origin.kind == "files"]
    with contextlib.chdir(PRESET.parents[1]):
        written = load_examples(sources, lambda task: (), Cleaning(0.0, None, seed=1), count=1)
    drawn = {source.task: DRAWN for source in ingest.examples if source not in sources}
    return drawn | {task: Example(query[:40], response[:40]) for task, [(query, response)] in written.items()}


class Done:
    """All 41 tasks, scored."""

    def __init__(self, folder: Path, checkpoint: Path, patch: pytest.MonkeyPatch) -> None:
        patch.setenv("ANNA_HUB_DIR", str(folder))
        patch.setattr("datasets.config.HF_DATASETS_CACHE", str(folder / "cache"))
        self.tasks = select_tasks(BENCHMARK, None, pytest.fail)
        write_all(folder, self.tasks)
        for part in load_student(checkpoint, 2):
            part.save_pretrained(folder / "model")
        self.examples = first_examples()
        prompts = {
            name: TaskPrompt(
                instruction=task.instruction,
                symmetric=task.symmetric,
                examples=[self.examples[name]] if name in self.examples else [],
            )
            for name, task in PROMPTS.items()
        }
        EncoderConfig(base="tiny", layers=2, max_tokens=2048, example_tokens=16, tasks=prompts).save(folder / "model")
        self.prefixes: defaultdict[str, set[str]] = defaultdict(set)
        original = Encoder.embed

        def embed(encoder, texts, *, prefix, **kwargs):
            for text in texts:
                self.prefixes[re.search(r"\((\S+)\)", text)[1]].add(prefix)
            return original(encoder, texts, prefix=prefix, **kwargs)

        patch.setattr(Encoder, "embed", embed)
        self.results = folder / "results"
        student = contenders.student(folder / "model", SETTINGS)
        self.scores = run.evaluate_all([student], self.tasks, folder / "store", self.results)


@pytest.fixture(scope="module")
def done(tmp_path_factory, tiny_checkpoint):
    with pytest.MonkeyPatch.context() as patch:
        yield Done(tmp_path_factory.mktemp("hub"), tiny_checkpoint, patch)


def test_all_41_have_a_score_in_both_modes(done):
    for mode in (scores.ZERO_SHOT, scores.WITH_EXAMPLES):
        own = {score.task: score.value for score in done.scores if score.mode == mode}
        assert set(own) == {task.metadata.name for task in mteb.get_benchmark(BENCHMARK).tasks}
        assert len(own) == 41
        assert all(math.isfinite(value) and abs(value) <= 1 for value in own.values())


def test_each_task_is_asked_with_its_own_instruction_and_with_its_own_examples(done):
    assert set(done.examples) == {task.metadata.name for task in done.tasks}
    assert len({example.query for example in done.examples.values()}) == 21, "20 of them written, one for all others"
    for task in done.tasks:
        name = task.metadata.name
        block = f"Instruct: {PROMPTS[name].instruction}\nQuery: "
        query, response = done.examples[name]
        expected = {block, f"{block}{query}\nResponse: {response}\n\n{block}"}
        if task.metadata.type in ("Retrieval", "Reranking"):
            expected.add("")
        assert done.prefixes[name] == expected, name


def test_examples_change_most_scores(done):
    zero, shown = (
        {score.task: score.value for score in done.scores if score.mode == mode}
        for mode in (scores.ZERO_SHOT, scores.WITH_EXAMPLES)
    )
    changed = {name for name in zero if zero[name] != shown[name]}
    assert len(changed) > 20, sorted(set(zero) - changed)


def test_the_seven_categories_are_those_of_the_leaderboard(done):
    counts = {name: 0 for name in scores.CATEGORIES}
    for score in done.scores:
        counts[score.type] += score.mode == scores.ZERO_SHOT
    assert counts == {
        "Classification": 8,
        "Clustering": 8,
        "PairClassification": 3,
        "Reranking": 2,
        "Retrieval": 10,
        "STS": 9,
        "Summarization": 1,
    }


def test_mteb_loads_the_results_back_as_those_of_its_benchmark(done, tmp_path):
    shutil.copytree(done.results, tmp_path / "results")
    loaded = ResultCache(tmp_path).load_results(
        models=["anna/student"], tasks=mteb.get_benchmark(BENCHMARK), include_remote=False, validate_and_filter=True
    )
    modes = {result.model_revision: result for result in loaded.model_results}
    assert set(modes) == {scores.ZERO_SHOT, scores.WITH_EXAMPLES}
    zero = modes[scores.ZERO_SHOT]
    assert zero.model_name == "anna/student"
    assert len(zero.task_results) == 41
    own = {score.task: score.value for score in done.scores if score.mode == scores.ZERO_SHOT}
    assert {result.task_name: result.get_score() for result in zero.task_results} == pytest.approx(own)
    revisions = {task.metadata.name: task.metadata.dataset["revision"] for task in done.tasks}
    assert {result.task_name: result.dataset_revision for result in zero.task_results} == revisions
