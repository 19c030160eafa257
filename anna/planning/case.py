"""What estimates of stages are made from, and what they say."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from anna.footprint import Setup
from anna.planning import training
from anna.planning.counts import Counts
from anna.planning.hardware import Hardware
from anna.planning.settings import Settings
from anna.shapes import Shape


class Estimate(NamedTuple):
    """What a stage takes."""

    stage: str
    tokens: float
    operations: float
    memory: float
    """Peak of each device: of the GPU where the stage runs on one, else of the machine."""
    disk: float
    """Bytes that stay, or are written at one time."""
    seconds: float
    note: str = ""


class Models(NamedTuple):
    """Shapes of the three models."""

    student: Shape
    """With the layers that are kept."""
    dense: Shape
    reranker: Shape
    checkpoint: Shape
    """The student's, whole."""


@dataclass(frozen=True)
class Case:
    """All that estimates are made from, and what of training several of them need."""

    settings: Settings
    counts: Counts
    models: Models
    hardware: Hardware
    ranks: int
    """Processes that train."""

    @cached_property
    def work(self) -> training.Work:
        """What training computes."""
        return training.plan(self.settings, self.counts, self.models.student, self.ranks)

    @cached_property
    def setup(self) -> Setup:
        """What decides the memory of training."""
        own = training.setup(self.settings.train, self.models.student, self.hardware, self.ranks, self.work.largest)
        return own._replace(start=training.start(self.settings, self.counts, own))
