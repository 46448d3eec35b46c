"""Seconds of a cell from counted operations at a stated speed: right within a factor of a few, for planning."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vlmbench.config import schema
from vlmbench.config.checks import encoded_splits, frozen_image
from vlmbench.config.prompts import tries_prompts
from vlmbench.domains.subset import SMALL_SHARE
from vlmbench.grid.devices import CORE, Device
from vlmbench.grid.workload import OPTIONS, PROMPT, TEXT, Rows, Sized, sized

# Assumptions, all four; where cells like it are finished their measured times are taken instead.
#: Seconds to read, decode and resize an image once; the pixel cache keeps the result for all cells of a machine.
READ = 0.005
#: Bytes/s at which weights come from a disk.
_LOAD = 1e9
#: L-BFGS iterations that solving a probe takes for one strength, and the width of the features.
_SOLVE, _WIDTH = 100, 768
#: Of the questions of a vqa domain, those that are closed and have their options scored.
_CLOSED = 0.5


@dataclass(frozen=True)
class Phases:
    """Where the seconds of a cell go; what repeats with the rows apart from what does not.

    Attributes:
        fixed: Starting, loading, saving, scoring.
        encode: Images that are encoded once, before anything else, see `encoding`.
        fit: One epoch with its validation, or solving a probe as a whole.
        epochs: How often `fit` is passed; 1 for a probe, 0 where nothing is fitted.
        predict: The test split.
    """

    fixed: float
    encode: float
    fit: float
    epochs: float
    predict: float

    @property
    def total(self) -> float:
        """All seconds."""
        return self.fixed + self.encode + self.fit * self.epochs + self.predict


def phases(config: schema.CellConfig, rows: Rows, device: Device) -> Phases | None:
    """Return the seconds of a cell's phases; None where the model's size is not known.

    Args:
        config: The cell; it is taken to go through all its epochs.
        rows: Examples of its splits.
        device: What it runs on; several of them share the batches of a cell evenly.
    """
    size = sized(config.model)
    if size is None:
        return None
    trainer = config.trainer
    speed = device.flops(trainer.precision) * trainer.devices * trainer.nodes
    parameter = 4 if trainer.precision == "32-true" else 2
    fixed = device.start + size.total * parameter / _LOAD
    answer = _answer(config, rows, size) / speed
    asked = rows.test + _tried(config, rows)
    evaluations = math.ceil(asked / trainer.eval_batch_size)
    predict = asked * answer + evaluations * device.step + _writing(config, asked, size, device, parameter)
    encode = sum(encoding(config, rows, device).values())
    if config.finetune.name == "zero_shot":
        return Phases(fixed, encode, 0.0, 0.0, predict)
    if isinstance(config.finetune, schema.LinearProbeConfig):
        classes, strengths = max(2, rows.labels), len(config.finetune.strengths)
        solved = 4.0 * rows.train * _WIDTH * classes * _SOLVE * strengths / CORE
        return Phases(fixed, encode, solved, 1.0, predict)
    if isinstance(config.finetune, schema.LpTextConfig):
        solved = 4.0 * rows.train * _WIDTH * max(2, rows.labels) * config.finetune.iterations / CORE
        return Phases(fixed, encode, solved, 1.0, predict)
    steps = math.ceil(rows.train / trainer.batch_size)
    validations = math.ceil(rows.val / trainer.eval_batch_size)
    fit = (rows.train * _training(config, rows, size) + steps * _prompts(config, rows, size)) / speed
    fit += (rows.val * _validation(config, rows, size)) / speed + (steps + validations) * device.step
    return Phases(fixed, encode, fit, epochs_of(config, steps), predict)


def encoding(config: schema.CellConfig, rows: Rows, device: Device) -> dict[str, float]:
    """Return the seconds in which the images of each split are encoded, for this cell and others that share them.

    Args:
        config: The cell.
        rows: Examples of its splits.
        device: What it runs on.
    """
    size = sized(config.model)
    if size is None:
        return {}
    speed = device.flops(config.trainer.precision) * config.trainer.devices * config.trainer.nodes
    seconds: dict[str, float] = {}
    for split in encoded_splits(config):
        count = float(getattr(rows, split))
        if split == "train" and config.domain.fraction >= SMALL_SHARE:
            count /= config.domain.fraction  # the whole, which other fractions share
        batches = math.ceil(count / config.trainer.eval_batch_size)
        seconds[split] = count * _vision(size) / speed + batches * device.step
    return seconds


def epochs_of(config: schema.CellConfig, batches: int) -> float:
    """Return the most epochs that a cell is trained for, a part of one where `max_steps` ends it."""
    trainer = config.trainer
    if trainer.max_steps < 0 or not batches:
        return float(trainer.max_epochs)
    steps = math.ceil(batches / trainer.accumulate_grad_batches)
    return min(float(trainer.max_epochs), trainer.max_steps / max(1, steps))


def _vision(size: Sized) -> float:
    return 2.0 * size.vision * size.shape.vision_tokens


def _text(size: Sized) -> float:
    return 2.0 * size.text * (size.shape.image_tokens + TEXT if size.shape.generative else PROMPT)


def _forward(config: schema.CellConfig, size: Sized) -> float:
    """Return the operations of one forward pass over one example, none where its image is encoded already."""
    both = size.shape.generative or config.task.name == "pretrain"
    image = 0.0 if frozen_image(config) else _vision(size)
    return image + (_text(size) if both else 0.0)


def _asked(config: schema.CellConfig, rows: Rows) -> int:
    """Return how many questions a generative model is asked about one image."""
    return max(1, rows.labels) if config.task.name == "diagnosis" and _multi_label(config) else 1


def _multi_label(config: schema.CellConfig) -> bool:
    domain = config.domain
    return bool(getattr(domain, "multi_label", False)) or getattr(domain, "target", "") == "multilabel"


def _training(config: schema.CellConfig, rows: Rows, size: Sized) -> float:
    """Return the operations of training on one example once."""
    finetune, scope = config.finetune, getattr(config.finetune, "scope", "")
    weights = 2 if finetune.name == "full" else 1  # of a tower that trains: its activations' gradients, and weights'
    if not size.shape.generative:
        forward, vision = _forward(config, size), _vision(size)
        text = _text(size) if config.task.name == "pretrain" else 0.0
        return forward + weights * (vision * ("vision" in scope) + text * ("text" in scope))
    backward = _text(size) * (weights if "L" in scope else 1)  # what stands behind the connector passes gradients on
    backward += _vision(size) * weights * ("V" in scope)
    return _asked(config, rows) * (_forward(config, size) + backward)


def _prompts(config: schema.CellConfig, rows: Rows, size: Sized) -> float:
    """Return the operations of encoding all prompts in each step, where the text tower trains or its input does."""
    sides = 2 if _multi_label(config) else 1
    if isinstance(config.finetune, schema.CoopConfig):
        return 2.0 * max(2, rows.labels) * sides * _text(size)
    if size.shape.generative or "text" not in getattr(config.finetune, "scope", "") or config.task.name == "pretrain":
        return 0.0
    prompts = max(2, rows.labels) * max(1, len(config.domain.templates)) * sides
    return 3.0 * prompts * _text(size)


def _validation(config: schema.CellConfig, rows: Rows, size: Sized) -> float:
    loss = _asked(config, rows) * _forward(config, size)
    answers = size.shape.generative and (config.task.name == "diagnosis" or config.task.monitor == "val/accuracy")
    return loss + (_answer(config, rows, size) if answers else 0.0)


def _answer(config: schema.CellConfig, rows: Rows, size: Sized) -> float:
    """Return the operations of answering one example, but for those of writing text."""
    forward = _forward(config, size)
    if not size.shape.generative or config.task.name == "pretrain":
        return forward
    if config.task.name == "diagnosis":
        options = OPTIONS if _multi_label(config) else max(2, rows.labels)
        return _asked(config, rows) * options * forward
    return forward * (1 + _CLOSED * OPTIONS * bool(getattr(config.task, "likelihood", False)))


def _tried(config: schema.CellConfig, rows: Rows) -> int:
    """Return how many validation examples are answered while a prompt is chosen, once for each candidate."""
    prompts = config.task.prompts
    return prompts.candidates * min(rows.val, prompts.examples) if tries_prompts(config) else 0


def _writing(config: schema.CellConfig, rows: int, size: Sized, device: Device, parameter: int) -> float:
    """Return the seconds of writing the answers of some rows: each token reads all weights for the whole batch."""
    if not size.shape.generative or not isinstance(config.task, schema.VqaTaskConfig):
        return 0.0
    batches = math.ceil(rows / config.trainer.eval_batch_size)
    if config.trainer.precision != "32-true":
        batches += min(64, rows)  # answered once more alone, to count what batches change (`cell.work`)
    token = device.step + size.text * parameter / device.bandwidth
    return batches * config.task.max_new_tokens * token
