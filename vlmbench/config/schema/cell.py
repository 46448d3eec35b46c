"""A cell with its budget and machine, and what the other commands take."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from vlmbench.config.schema.domain import DomainConfig
from vlmbench.config.schema.fields import number, one_of
from vlmbench.config.schema.method import FinetuneConfig, TaskConfig
from vlmbench.config.schema.model import ModelConfig


@dataclass
class TrainerConfig:
    """The budget and the machine.

    Attributes:
        batch_size: Rows of one training batch, over all devices together.
        strategy: How a cell uses several devices, Lightning's name; `auto` is one device.
        devices: Devices of one node that a cell uses.
        nodes: Nodes that a cell uses.
        checkpoint_minutes: Longest training time that a killed process loses; what is asked to stop loses nothing.
        max_epochs: Most passes over the training split.
        max_steps: Most optimiser steps; -1 for no such limit.
        patience: Epochs without a better validation metric before training stops.
        precision: Lightning's name for the arithmetic.
        num_workers: Processes that decode images that are not in the pixel cache; 0 decodes in the training process. -1
            takes what fits: none for synthetic images, else one for each core that the cell may use but one, 8 at most.
        eval_batch_size: Batch size of validation, prediction and encoding.
        pixel_cache_gib: Most that preprocessed images may take on disk, of all models and domains together and never
            more than 80 % of what is free; 0 keeps none. They lie below VLMBENCH_CACHE (~/.cache/vlmbench).
        feature_cache_gib: Most that images encoded by frozen towers may take there, which cells share; 0 keeps none,
            and encodes a part of a training split by itself.
        vision_cache_gib: Most that what frozen vision towers of generative models give may take there, which cells
            share too: 1.1 MiB an image of LLaVA 1.5 in bfloat16, twice that in float32. The tower of a cell whose
            images do not all find room runs each time; 0 keeps none.
        micro_tokens: Most tokens, padding included, of which gradients are computed at a time; an image of a
            contrastive model counts as one. A batch that has more is computed in parts of similar length, and the step
            is that of the whole batch. 0: on a CPU in parts where that saves much padding; on a GPU whole until memory
            runs out, then in parts that are halved until they fit.
        gradient_checkpointing: Whether activations are computed anew in the backward pass, which saves memory and costs
            time; `auto` begins to once memory runs out on a single row.
        compile: Compile the layers for training by torch.compile. The first steps of each run take minutes.
        attention: Kernel of the attention, transformers' name; `auto` is sdpa, where the architecture has it.
    """

    max_epochs: int = number(20, 1)
    max_steps: int = number(-1, -1)
    batch_size: int = number(32, 1)
    eval_batch_size: int = number(64, 1)
    accumulate_grad_batches: int = number(1, 1)
    gradient_clip_val: float = number(1.0, 0)
    precision: str = one_of("32-true", "bf16-mixed", "16-mixed", default="32-true")
    patience: int = number(5, 1)
    accelerator: str = one_of("auto", "cpu", "gpu", "cuda", "mps", default="auto")
    num_workers: int = number(-1, -1, 256)
    strategy: str = one_of("auto", "ddp", "fsdp", "deepspeed_stage_3", default="auto")
    devices: int = number(1, 1, 1024)
    nodes: int = number(1, 1, 1024)
    checkpoint_minutes: float = number(10.0, 0)
    pixel_cache_gib: float = number(50.0, 0)
    feature_cache_gib: float = number(20.0, 0)
    vision_cache_gib: float = number(50.0, 0)
    micro_tokens: int = number(0, 0)
    gradient_checkpointing: str = one_of("auto", "on", "off", default="auto")
    compile: bool = False
    attention: str = one_of("auto", "eager", "sdpa", "flash_attention_2", default="auto")


@dataclass
class LoggerConfig:
    """Where curves and results are shown besides the record."""

    name: str = one_of("none", "wandb", default="none")


@dataclass
class WandbLoggerConfig(LoggerConfig):
    """One Weights & Biases run a cell, named by the cell's identity.

    Attributes:
        mode: `online`, `offline` (sync later), or `disabled`; what `WANDB_MODE` says holds where it lets less out.
        group: Of the runs; null takes the name of the grid.
        tags: Besides those of the cell: its model, role, domain, method and the like.
        folder: Where the run's files go; null puts them into the cell's own directory.
        predictions: What of each prediction leaves this machine: `none`; `scores` (targets and scores of classes, or
            whether an answer is right, under a running number); `text` (also identifiers, questions and answers, which
            may name patients).
        prediction_rows: Largest number of rows of that table, drawn evenly from the test set.
        artifact: Whether what was trained is uploaded. Weights can give away training data.
        patience: Seconds that a finished cell waits for its uploads; what is left then stays on disk for `wandb sync`.
    """

    name: str = one_of("wandb", default="wandb")
    project: str = "vlmbench"
    entity: str | None = None
    mode: str = one_of("online", "offline", "disabled", default="online")
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    folder: str | None = None
    predictions: str = one_of("none", "scores", "text", default="none")
    prediction_rows: int = number(200, 1, 10_000)
    artifact: bool = False
    patience: float = number(120.0, 1.0)


@dataclass
class SweepConfig:
    """The grid that a multirun names.

    Attributes:
        name: `none` outside a grid.
    """

    name: str = "none"


@dataclass
class CellConfig:
    """One point of the grid: model, task, finetune, domain, seed; plus how and where it is run.

    Attributes:
        seed: Seeds initialisation, the order of the batches and dropout.
        output: Directory under which each cell has its own.
        lock: Lock file of the weights; one that is not there locks nothing.
        deterministic: Ask torch for deterministic algorithms, so that a run repeats exactly.
    """

    model: ModelConfig = MISSING
    task: TaskConfig = MISSING
    finetune: FinetuneConfig = MISSING
    domain: DomainConfig = MISSING
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    seed: int = number(0, 0, 2**32 - 1)
    output: str = "runs"
    lock: str = "vlmbench.lock"
    deterministic: bool = True


@dataclass
class FetchConfig(CellConfig):
    """What to bring: the models of a cell, or of a whole grid.

    Attributes:
        update: Ask for revisions anew instead of taking the commits in the lock file, and lock what is found.
    """

    update: bool = False


@dataclass
class EvaluateConfig:
    """A finished cell taken to another domain without further training.

    Attributes:
        cell: Directory of the finished cell.
        logger: Where the results are shown besides the record, under a run of the transfer's own.
        lock: Lock file of the weights; one that is not there locks nothing.
        overwrite: Compute again where the record is already there.
    """

    cell: str = MISSING
    domain: DomainConfig = MISSING
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    lock: str = "vlmbench.lock"
    overwrite: bool = False


@dataclass
class ReportConfig:
    """Records in, one page out.

    Attributes:
        records: Directory searched for records, at any depth.
        output: Directory of the page, the CSV file and the LaTeX tables.
        title: Heading of the page.
        confidence: Of the intervals of differences.
        resamples: Bootstrap resamples behind them.
        margin: Largest difference that does not matter, in the metric's unit: what "equivalent" means.
        power: Of the smallest difference that a test set could show.
        against: Reference numbers to set beside these: `published`, or a CSV file; empty for none.
        gpu_hours: Budget of the recommendation for one tuned cell; null for no limit, as the next two.
        memory_gib: Of the device, or of the host where none was used.
        labelled: Labelled training examples.
        gallery: Show examples with their images. Only for data that may leave this machine.
    """

    records: str = "runs"
    output: str = "report"
    title: str = "vlmbench report"
    confidence: float = number(0.95, 0.5, 0.999)
    resamples: int = number(10_000, 100, 1_000_000)
    margin: float = number(0.02, 1e-4, 1)
    power: float = number(0.8, 0.5, 0.999)
    against: str = ""
    gpu_hours: float | None = number(None, 0)
    memory_gib: float | None = number(None, 0)
    labelled: int | None = number(None, 1)
    gallery: bool = False
