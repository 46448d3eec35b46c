"""What the command that has answers judged takes."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from vlmbench.config.schema.fields import number, one_of
from vlmbench.config.schema.method import FinetuneConfig, TaskConfig
from vlmbench.config.schema.model import ModelConfig


@dataclass
class JudgeConfig:
    """Open answers of finished VQA cells, judged by a language model.

    Attributes:
        model: The judge: a hosted model, or a generative one of the `hf_vlm` loader that takes text alone.
        task: As the model's file chooses it; not used.
        finetune: As the model's file chooses it; not used.
        records: Directory searched for records, at any depth.
        profile: `strict`: correct, partial or incorrect, for 1, 0.5 and 0. `medvlmbench`: the study's rating from 1 to
            100, here divided by 100.
        skip_exact: An open answer that is the reference itself scores 1 without being asked about.
        swap: Share of the questions that are put again with reference and answer in the other order.
        repeat: Share that are put once more, past the cache.
        controls: Share of the closed questions, whose truth is known, that are judged too.
        seed: Decides which questions these are.
        max_tokens: Most tokens of a reply, without `model.extra_tokens`.
        resamples: Bootstrap resamples behind each interval.
        may_leave: That questions and answers may be sent to another machine.
        dry_run: Only tell how much there is to ask.
        overwrite: Replace judgements of another judge, or of other settings.
        precision: Arithmetic of a local model.
        lock: Lock file of a local model's weights.
    """

    model: ModelConfig = MISSING
    task: TaskConfig = MISSING
    finetune: FinetuneConfig = MISSING
    records: str = "runs"
    profile: str = one_of("strict", "medvlmbench", default="strict")
    skip_exact: bool = True
    swap: float = number(0.2, 0, 1)
    repeat: float = number(0.1, 0, 1)
    controls: float = number(0.2, 0, 1)
    seed: int = number(0, 0, 2**32 - 1)
    max_tokens: int = number(200, 4, 100_000)
    resamples: int = number(1000, 100, 1_000_000)
    may_leave: bool = False
    dry_run: bool = False
    overwrite: bool = False
    precision: str = one_of("32-true", "bf16-mixed", "16-mixed", default="32-true")
    lock: str = "vlmbench.lock"
