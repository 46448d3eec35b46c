"""What the command that tries a finished cell takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from vlmbench.config.schema.fields import one_of


@dataclass
class PredictConfig:
    """Images of the user's own, put to a finished cell.

    Attributes:
        run: Directory of the cell, or of a transfer.
        image: A file, or a list of files as in `image=[a.png,b.dcm]`.
        question: VQA: what is asked about each image.
        options: VQA: the answers to choose from, as in `options=[yes,no]`; none for an open question.
        multiple_choice: VQA: list the options under letters in the prompt, as a multiple choice question has them.
        json: Print JSON instead of text.
        accelerator: Where it is computed.
        lock: Lock file of the weights; one that is not there locks nothing.
    """

    run: str = MISSING
    image: Any = MISSING
    question: str = ""
    options: list[str] = field(default_factory=list)
    multiple_choice: bool = False
    json: bool = False
    accelerator: str = one_of("auto", "cpu", "gpu", "cuda", "mps", default="auto")
    lock: str = "vlmbench.lock"
