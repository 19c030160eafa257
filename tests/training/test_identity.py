"""What makes a run another run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers.normalizers import Lowercase

from anna.modeling.encoder import Encoder
from anna.training.identity import code, conditions, differences, digest, digest_weights, identify
from anna.training.recipe import TrainParams
from anna.training.validation import HeldOut
from tests.conftest import tiny_student
from tests.test_contracts import REPO, reachable
from tests.training.worker import recipe, toy_groups, toy_texts


@dataclass
class Run:
    """The parts of a run, to change one at a time."""

    encoder: Encoder
    recipe: dict[str, Any] = field(default_factory=lambda: recipe(1, "lora").model_dump())
    layers: int = 2
    groups: Any = field(default_factory=toy_groups)
    held_out: Any = field(default_factory=lambda: [HeldOut("Capitals", ("q1",), ("d1",))])
    texts: Any = field(default_factory=toy_texts)

    def identity(self) -> dict[str, Any]:
        return identify(
            recipe=TrainParams.model_validate(self.recipe),
            student=tiny_student(Path("tiny"), layers=self.layers),
            encoder=self.encoder,
            groups=self.groups,
            held_out=self.held_out,
            texts=self.texts,
        )


def changed(run: Run, part: str) -> Run:
    """Change one part of the run."""
    if part == "train.lora.alpha":
        run.recipe["lora"] = {**run.recipe["lora"], "alpha": 9}
    elif part == "student.layers":
        run.layers = 3
    elif part == "data.groups":
        run.groups = [*run.groups[:-1], run.groups[-1]._replace(soft_labels=(0.5, 0.5))]
    elif part == "data.validation":
        run.held_out = []
    elif part == "data.texts":
        run.texts = run.texts._replace(positives={"q05": frozenset({"d5"})})
    elif part == "data.vectors":
        run.texts = run.texts._replace(vectors={"q05": np.ones(3, dtype=np.float32)})
    elif part == "weights":
        with torch.no_grad():
            next(run.encoder.backbone.parameters())[0, 0] += 1e-3
    elif part == "model config":
        run.encoder.backbone.config.rms_norm_eps *= 2
    elif part == "tokenizer":
        run.encoder.tokenizer.backend_tokenizer.normalizer = Lowercase()
    elif part == "dtype":
        run.encoder.dtype = torch.bfloat16
    else:
        tasks = run.encoder.config.tasks
        other = {"Similar": tasks["Similar"].model_copy(update={"instruction": "another"})}
        run.encoder.config = run.encoder.config.model_copy(update={"tasks": {**tasks, **other}})
    return run


@pytest.mark.parametrize(
    "part",
    [
        "train.lora.alpha",
        "student.layers",
        "data.groups",
        "data.validation",
        "data.texts",
        "data.vectors",
        "weights",
        "model config",
        "tokenizer",
        "dtype",
        "prompts.tasks.Similar.instruction",
    ],
)
def test_each_part_of_a_run_is_named_when_it_differs(tiny_encoder: Encoder, part: str) -> None:
    run = Run(tiny_encoder)
    before = run.identity()
    run.encoder.tokenize(["a text, which leaves the tokenizer set to cut"], max_tokens=4)
    assert differences(before, run.identity()) == []
    assert differences(before, changed(run, part).identity()) == [part]


@pytest.mark.parametrize(("name", "value"), [("processes", 4), ("checkpoint_steps", 7)])
def test_what_leaves_the_weights_alone_is_the_same_run(tiny_encoder: Encoder, name: str, value: int) -> None:
    run = Run(tiny_encoder)
    before = run.identity()
    run.recipe[name] = value
    assert run.identity() == before


def test_code_that_decides_the_weights_is_part_of_a_run() -> None:
    hashed = {".".join(path.relative_to(REPO).with_suffix("").parts) for path in code()}
    # Files, logging, memory and errors: what these say is checked before training, or is no part of it.
    without_effect = (
        "allocation errors fingerprints io known_shapes lock log machine origins params ranks schemas shapes".split()
    )
    assert reachable("anna.training.run") - hashed == {f"anna.{name}" for name in without_effect}


def test_conditions_name_ranks_device_and_threads() -> None:
    got = conditions(3)
    assert got["train.processes"] == 3
    assert "device" in got
    assert got["threads per process"] == torch.get_num_threads()


def test_digests_see_order_boundaries_names_and_types() -> None:
    assert digest([np.ones(2).tobytes()]) != digest([np.zeros(2).tobytes()])
    assert digest(["ab", "c"]) != digest(["a", "bc"]) != digest(["bc", "a"])
    ones = torch.ones(4)
    others = [{"v": ones}, {"w": ones.double()}, {"w": ones.view(2, 2)}, {"w": ones * 2}]
    assert digest_weights({"w": ones}) == digest_weights({"w": torch.ones(4)})
    assert len({digest_weights(weights) for weights in [{"w": ones}, *others]}) == 5
