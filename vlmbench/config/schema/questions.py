"""What the command that writes questions takes."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from vlmbench.config.schema.domain import DomainConfig
from vlmbench.config.schema.fields import number
from vlmbench.config.schema.method import FinetuneConfig, TaskConfig
from vlmbench.config.schema.model import ModelConfig


@dataclass
class QuestionsConfig:
    """Questions about a dataset's images, written by a hosted model from the clinical notes.

    Attributes:
        model: A hosted model.
        domain: The dataset.
        task: As the model's file chooses it; not used.
        finetune: As the model's file chooses it; not used.
        output: Folder of the tables; empty takes the one that the domain reads them from.
        column: Of the dataset's table of notes: what the model is shown of a note.
        seed: Decides which closed questions are to be answered by yes, and the seed of each request.
        attempts: Most requests for one image.
        max_tokens: Most tokens of a reply, without `model.extra_tokens`.
        limit: Most images of each split, for a trial, drawn by the seed; 0 takes all.
        consent: That the notes may be sent to another machine.
        overwrite: Replace other questions that are there.
    """

    model: ModelConfig = MISSING
    domain: DomainConfig = MISSING
    task: TaskConfig = MISSING
    finetune: FinetuneConfig = MISSING
    output: str = ""
    column: str = "gpt4_summary"
    seed: int = number(0, 0, 2**32 - 1)
    attempts: int = number(3, 1, 20)
    max_tokens: int = number(400, 16, 100_000)
    limit: int = number(0, 0)
    consent: bool = False
    overwrite: bool = False
