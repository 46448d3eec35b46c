"""How many bytes cells leave on disk, and hold while they train."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vlmbench.catalogue.memory import channels
from vlmbench.config import schema
from vlmbench.grid.workload import Rows, Sized, rows_of, sized

#: Bytes of a record with its audit and of a log; of a row of predictions, of each of its scores, and of an answer.
_RECORD, _ROW, _SCORE, _ANSWER = 30_000, 40, 8, 100
#: Bytes of a weight as it is saved, and of one in a checkpoint: itself and AdamW's two moments, in float32.
_SAVED, _CHECKPOINT = 4, 12
#: Checkpoints that a training keeps: the last and the best.
_KEPT = 2
#: A transformer layer of width w has Linear layers of 18 w inputs and outputs together: four of w by w in attention,
#: and two of w by 4 w; LoRA of rank r adds r for each.
_LINEAR = 18
_FEATURES = 768


@dataclass(frozen=True)
class Disk:
    """Bytes of one cell or of many.

    Attributes:
        kept: What is left when it is done.
        passing: What is held beside that while it trains.
    """

    kept: float
    passing: float


def disk(config: schema.CellConfig, rows: Rows | None = None) -> Disk:
    """Return about what a cell writes; right within a factor of two where the model's size is known.

    Args:
        config: The cell.
        rows: Examples of its splits, where its domain has been built.
    """
    rows = rows or rows_of(config)
    size = sized(config.model)
    trained = trained_parameters(config, size, rows.labels if rows else 2) if size else 0.0
    row = _ROW + (_SCORE * max(2, rows.labels) if rows and rows.labels else _ANSWER)
    predictions = rows.test * row if rows else 0
    optimised = isinstance(config.finetune, schema.OptimisedConfig)
    return Disk(_RECORD + predictions + _SAVED * trained, _KEPT * _CHECKPOINT * trained if optimised else 0.0)


def together(each: Iterable[Disk], at_a_time: int = 1) -> Disk:
    """Return the bytes of many cells of which some run at the same time: the largest of them, to be safe."""
    listed = list(each)
    passing = sorted((one.passing for one in listed), reverse=True)[:at_a_time]
    return Disk(sum(one.kept for one in listed), sum(passing))


def trained_parameters(config: schema.CellConfig, size: Sized, labels: int) -> float:
    """Return about how many parameters a cell trains and saves.

    Args:
        config: The cell.
        size: Of its model.
        labels: Of a diagnosis.
    """
    finetune, scope = config.finetune, getattr(config.finetune, "scope", "")
    head = float(_FEATURES * max(2, labels)) if config.task.name == "diagnosis" else 0.0
    towers = {"vision": size.vision - size.connector, "text": size.text}
    if isinstance(finetune, schema.LinearProbeConfig | schema.LpTextConfig):
        return head
    if isinstance(finetune, schema.CoopConfig):
        vectors = len(finetune.words.split()) or finetune.context_length
        return float(_FEATURES * vectors * (max(2, labels) if finetune.class_specific else 1))
    if isinstance(finetune, schema.ClipAdapterConfig):
        return 2.0 * _FEATURES * max(1, _FEATURES // finetune.reduction)
    if isinstance(finetune, schema.ConnectorConfig):
        return size.connector
    if size.shape.generative:
        reached = [part for part, letter in (("vision", "V"), ("text", "L")) if letter in scope]
        connector = size.connector if "M" in scope else 0.0
    else:
        reached, connector = [part for part in towers if part in scope], 0.0
    if isinstance(finetune, schema.FullConfig):
        return head + connector + sum(towers[part] for part in reached)
    if isinstance(finetune, schema.LoraConfig):
        whole = connector if finetune.connector == "full" else 0.0
        return head + whole + sum(_LINEAR * finetune.rank * channels(towers[part]) for part in reached)
    return 0.0
