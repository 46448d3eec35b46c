"""Supervised fine-tuning on answers, generation, and choice by likelihood: VQA, diagnosis and captioning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from vlmbench.backbones.base import Turn
from vlmbench.domains.base import Example
from vlmbench.domains.datamodule import Row
from vlmbench.metrics import vqa
from vlmbench.modules import across
from vlmbench.modules.base import Optimisation, TunedModule
from vlmbench.modules.prompting import Asker, Query
from vlmbench.modules.scoring import targets_of, validation_metrics

T = TypeVar("T")
Mode = Literal["vqa", "diagnosis", "pretrain"]


class GenerativeModule(TunedModule):
    """A generative model asked about images.

    Args:
        backbone: A generative backbone, prepared by a tuner.
        ask: Turns an example into questions.
        mode: The task.
        label_count: Diagnosis: number of labels C.
        multi_label: Diagnosis: whether each label is asked about by itself.
        max_new_tokens: Longest generated answer.
        likelihood: VQA: also score the options of closed questions.
        validate_answers: VQA: answer the validation questions each epoch instead of only measuring the loss.
        optimisation: None where nothing is trained.
    """

    def __init__(
        self,
        backbone: Any,
        ask: Asker,
        *,
        mode: Mode,
        label_count: int = 0,
        multi_label: bool = False,
        max_new_tokens: int = 32,
        likelihood: bool = True,
        validate_answers: bool = False,
        optimisation: Optimisation | None = None,
    ) -> None:
        super().__init__(backbone, optimisation)
        self.ask = ask
        self.mode = mode
        self.label_count = label_count
        self.multi_label = multi_label
        self.max_new_tokens = max_new_tokens
        self.likelihood = likelihood
        self.validate_answers = validate_answers
        self._losses: list[tuple[int, float, int]] = []
        self._answered: list[dict[str, Any]] = []

    def collate(self, rows: list[Row]) -> dict[str, Any]:
        """Return a supervised batch, with the rows it was made of."""
        return {**self.backbone.collate(self._turns(rows), supervise=True), "rows": list(rows)}

    def collate_eval(self, rows: list[Row]) -> list[Row]:
        """Return the rows as they are: what is asked of them is tokenised in `answer`."""
        return rows

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leave batches where they are: the backbone places its own inputs."""
        return batch

    def lengths(self, batch: dict[str, Any]) -> list[int]:
        """Return the tokens of each question with its image and answer."""
        return batch["attention_mask"].sum(1).tolist()

    def part(self, batch: dict[str, Any], rows: Sequence[int]) -> dict[str, Any]:
        """Return some of the questions of a supervised batch, as a batch that is padded to the longest of them."""
        turns = self._turns(batch["rows"])
        return {**self.backbone.collate([turns[row] for row in rows], supervise=True), "rows": batch["rows"]}

    def part_loss(self, batch: dict[str, Any]) -> Tensor:
        """Return the mean loss over the supervised tokens."""
        return self.backbone.forward(_tensors(batch))[0]

    def supervised(self, batch: dict[str, Any]) -> int:
        """Return the number of supervised tokens that count."""
        return _supervised(batch) if self.counted_rows(batch) else 0

    def counted_rows(self, batch: dict[str, Any]) -> int:
        """Return how many examples count in a batch."""
        return self.counted([row[0] for row in batch["rows"]])

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        """Collect the loss weighted by supervised tokens, and answers where they select."""
        loss, _logits = self.backbone.forward(_tensors(batch))
        self._losses.append((batch["rows"][0][0], float(loss), _supervised(batch)))
        if self.mode == "diagnosis" or self.validate_answers:
            self._answered.extend(self.answer(batch["rows"]))

    def on_validation_epoch_end(self) -> None:
        """Log the loss of the validation split and, where answers were collected, how many are right."""
        self._losses = _whole(self._losses, lambda entry: entry[0])
        self._answered = _whole(self._answered, lambda row: row["index"])
        _, losses, weights = np.array(self._losses).T
        self.log("val/loss", float(np.average(losses, weights=weights)))
        if self._answered:
            for name, value in self._validation_scores().items():
                self.log(f"val/{name}", value)
        self._losses.clear()
        self._answered.clear()

    def predict_step(self, batch: list[Row], _: int) -> dict[str, Any]:
        """Return columns over the batch's rows: see `answer`; for captions the `loss` of the batch."""
        if self.mode == "pretrain":
            loss = float(self.backbone.forward(_tensors(self.collate(batch)))[0])
            return {"index": [row[0] for row in batch], "loss": [loss] * len(batch)}
        answered = self.answer(batch)
        return {key: [row[key] for row in answered] for key in answered[0] if key != "example"}

    @torch.no_grad()
    def answer(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Answer what is asked of each row.

        Returns:
            For each row its `index`; for VQA and captions `prediction` (text) and `option_scores` (log-likelihoods,
            empty for open questions) and the `example`; for diagnosis `scores` over the labels, probabilities, and the
            `labels` that hold.
        """
        asked = [(row, self.ask(row[1])) for row in rows]
        if self.mode == "diagnosis":
            return [
                {"index": row[0], "scores": scores, "labels": list(row[1].labels)}
                for (row, _), scores in zip(asked, self._diagnose(asked), strict=True)
            ]
        turns = [Turn(row[2], queries[0].prompt, image=row[1].image) for row, queries in asked]
        options = [queries[0].options if self.likelihood else () for _, queries in asked]
        scores: list[list[float]] = [[] for _ in turns]
        if any(options):
            texts, values = self.backbone.answer(turns, options, max_new_tokens=self.max_new_tokens)
            scores = [own[: len(row)].double().tolist() for own, row in zip(values, options, strict=True)]
        else:
            texts = self.generate(turns)
        return [
            {"index": row[0], "prediction": text, "option_scores": values, "example": row[1]}
            for (row, _), text, values in zip(asked, texts, scores, strict=True)
        ]

    @torch.no_grad()
    def generate(self, turns: Sequence[Turn]) -> list[str]:
        """Return the generated answers."""
        batch = self.backbone.collate(turns, supervise=False)
        return list(self.backbone.generate(batch, max_new_tokens=self.max_new_tokens))

    def alone(self, row: Row) -> str:
        """Return what is generated for one row of VQA that is asked by itself."""
        return self.generate([Turn(row[2], self.ask(row[1])[0].prompt, image=row[1].image)])[0]

    def arrange(self, examples: Sequence[Example]) -> Sequence[int]:
        """Return the order in which examples are asked about: prompts of like length together, and those of an image.

        What is read of an image is then read once for all questions about it, and little fills up the others' rows.
        Captions stay in order: their loss is one of whole batches.
        """
        if self.mode == "pretrain":
            return super().arrange(examples)
        lengths = [max(len(query.prompt) for query in self.ask(example)) for example in examples]
        images: dict[str, list[int]] = {}
        for index, example in enumerate(examples):
            images.setdefault(example.image, []).append(index)
        groups = sorted(images.values(), key=lambda group: max(lengths[index] for index in group))
        return [index for group in groups for index in sorted(group, key=lengths.__getitem__)]

    def output(self, batch: dict[str, Any]) -> Tensor:
        """Return the logits of the supervised tokens of a batch."""
        return self.backbone.forward(_tensors(batch))[1]

    def _turns(self, rows: Sequence[Row]) -> list[Turn]:
        return [Turn(pixels, q.prompt, q.answer, row.image) for _, row, pixels in rows for q in self.ask(row)]

    def _diagnose(self, asked: Sequence[tuple[Row, list[Query]]]) -> list[list[float]]:
        turns = [Turn(row[2], query.prompt, image=row[1].image) for row, queries in asked for query in queries]
        options = [query.options for _, queries in asked for query in queries]
        # Asked about each label, an image takes many rows; as many images at a time as fit into a batch.
        each = len(asked[0][1])
        size = max(1, len(asked) // each) * each
        parts = [self.backbone.score(turns[i : i + size], options[i : i + size]) for i in range(0, len(turns), size)]
        shares = torch.cat(parts).double().softmax(-1)
        if not self.multi_label:
            return shares.tolist()
        # One yes/no question a label: the score of a label is the share of "yes".
        return shares[:, 0].reshape(len(asked), -1).tolist()

    def _validation_scores(self) -> dict[str, float]:
        if self.mode == "diagnosis":
            targets = targets_of([row["labels"] for row in self._answered], self.label_count, self.multi_label)
            values = validation_metrics(np.array([row["scores"] for row in self._answered]), targets, self.multi_label)
            return {name: values[name] for name in ("auroc", "accuracy")}
        texts = [row["prediction"] for row in self._answered]
        asked = [row["example"] for row in self._answered]
        columns = [e.answer for e in asked], [e.answer_type for e in asked], [e.options for e in asked]
        return {"accuracy": float(np.nanmean(vqa.evaluate(texts, *columns)["accuracy"]))}


def _tensors(batch: dict[str, Any]) -> dict[str, Tensor]:
    return {key: value for key, value in batch.items() if isinstance(value, Tensor)}


def _supervised(batch: dict[str, Any]) -> int:
    return int((batch["labels"] != -100).sum())


def _whole(own: list[T], index: Callable[[T], int]) -> list[T]:
    """Return what all processes have, in the order of the rows, without what only kept one of them in step."""
    entries = [entry for part in across.gathered(own) for entry in part if index(entry) >= 0]
    return sorted(entries, key=index)
