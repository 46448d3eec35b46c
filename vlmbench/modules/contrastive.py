"""Diagnosis by a dual encoder: a linear head, or text prompts, as the classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vlmbench.backbones.contrastive.dual import Encoded
from vlmbench.domains.base import Domain
from vlmbench.domains.datamodule import Row
from vlmbench.modules import across
from vlmbench.modules.base import Optimisation, TunedModule
from vlmbench.modules.scoring import targets_of, validation_metrics
from vlmbench.tuning.heads import LinearHead, class_embeddings, flatten_prompts, text_logits


class TextClassifier(torch.nn.Module):
    """Class embeddings from prompts; the logit of a multi-label class is its presence against its absence.

    Args:
        backbone: A contrastive backbone.
        domain: Whose labels and prompts to use.
        trained: Whether the text tower trains, so that prompts are encoded anew in each step.
    """

    def __init__(self, backbone: Any, domain: Domain, *, trained: bool) -> None:
        super().__init__()
        sides = [domain.prompts.positive] + ([domain.prompts.negative] if domain.multi_label else [])
        self._prompts = [flatten_prompts(side, domain.label_names) for side in sides]
        self._tokens = [backbone.tokenize(texts) for texts, _ in self._prompts]
        self._trained = trained
        self._frozen: list[Tensor] | None = None

    def forward(self, backbone: Any, embeddings: Tensor) -> Tensor:
        """Return logits (B, C) for what `backbone.encode_image` gives."""
        scale = backbone.logit_scale.float()
        logits = [text_logits(embeddings, classes, scale) for classes in self._classes(backbone)]
        return logits[0] if len(logits) == 1 else logits[0] - logits[1]

    def _classes(self, backbone: Any) -> list[Tensor]:
        if self._frozen is not None:
            return self._frozen
        pairs = zip(self._tokens, self._prompts, strict=True)
        classes = [class_embeddings(backbone.encode_text(tokens), owners) for tokens, (_, owners) in pairs]
        if not self._trained:
            self._frozen = [value.detach() for value in classes]
        return classes


class ContrastiveModule(TunedModule):
    """Scores for every label of a domain.

    Args:
        backbone: A contrastive backbone, prepared by a tuner.
        classifier: A `LinearHead` on features; any other takes the backbone and the image embeddings.
        label_count: Number of labels C.
        multi_label: Sigmoid for each label instead of a softmax over them.
        optimisation: None where nothing is trained by gradient steps.
    """

    def __init__(
        self,
        backbone: Any,
        classifier: torch.nn.Module,
        *,
        label_count: int,
        multi_label: bool,
        optimisation: Optimisation | None = None,
    ) -> None:
        super().__init__(backbone, optimisation)
        self.classifier = classifier
        self.label_count = label_count
        self.multi_label = multi_label
        self._validation: list[tuple[Tensor, Tensor, Tensor]] = []

    def collate(self, rows: list[Row]) -> dict[str, Tensor]:
        """Return `pixels` (B, 3, H, W), `targets` (B,) or (B, C), and the rows' `index` (B,).

        Rows whose image is encoded already give `features` and `embeddings` in place of `pixels`.
        """
        targets = targets_of([example.labels for _, example, _ in rows], self.label_count, self.multi_label)
        inputs = [given for *_, given in rows]
        if isinstance(inputs[0], Encoded):
            images = {name: torch.stack([getattr(row, name) for row in inputs]) for name in Encoded._fields}
        else:
            images = {"pixels": torch.stack(inputs)}
        return {
            **images,
            "targets": torch.from_numpy(targets),
            "index": torch.tensor([index for index, *_ in rows]),
        }

    def logits(self, batch: dict[str, Tensor]) -> Tensor:
        """Return logits (B, C)."""
        encoded = "pixels" not in batch
        if isinstance(self.classifier, LinearHead):
            return self.classifier(batch["features"] if encoded else self.backbone.features(batch["pixels"]))
        embeddings = batch["embeddings"] if encoded else self.backbone.encode_image(batch["pixels"])
        return self.classifier(self.backbone, embeddings)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return probabilities (B, C) in float64: float32 would tie confident scores."""
        return logits.double().sigmoid() if self.multi_label else logits.double().softmax(-1)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy; for multi-label the sum over labels of the binary ones."""
        if self.multi_label:
            return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1).mean()
        return functional.cross_entropy(logits, targets)

    def lengths(self, batch: dict[str, Tensor]) -> list[int]:
        """Return 1 for each row: images are of one size."""
        return [1] * len(batch["index"])

    def part(self, batch: dict[str, Tensor], rows: Sequence[int]) -> dict[str, Tensor]:
        """Return some rows of a batch."""
        return {name: value[list(rows)] for name, value in batch.items()}

    def part_loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean loss over the rows."""
        return self.loss(self.logits(batch), batch["targets"])

    def supervised(self, batch: dict[str, Tensor]) -> int:
        """Return the number of rows that count."""
        return self.counted(batch["index"])

    counted_rows = supervised

    def validation_step(self, batch: dict[str, Tensor], _: int) -> None:
        """Collect logits; the metrics need the whole split."""
        logits = self.logits(batch).float()
        self._validation.append((batch["index"].cpu(), logits.cpu(), batch["targets"].cpu()))

    def on_validation_epoch_end(self) -> None:
        """Log the loss, AUROC and accuracy of the validation split."""
        parts = [part for parts in across.gathered(self._validation) for part in parts]
        self._validation.clear()
        index, logits, targets = (torch.cat(column) for column in zip(*parts, strict=True))
        order = index.argsort()[(index < 0).sum() :]  # rows that only kept a process in step come first
        logits, targets = logits[order], targets[order]
        values = validation_metrics(self.probabilities(logits).numpy(), targets.numpy(), self.multi_label)
        self.log("val/loss", self.loss(logits, targets))
        for name in ("auroc", "accuracy"):
            self.log(f"val/{name}", values[name])

    def predict_step(self, batch: dict[str, Tensor], _: int) -> dict[str, Any]:
        """Return `index` and `scores` (B, C), probabilities."""
        scores = self.probabilities(self.logits(batch))
        return {"index": batch["index"].tolist(), "scores": scores.cpu().tolist()}

    def output(self, batch: dict[str, Tensor]) -> Tensor:
        """Return image embeddings, and the class logits where text is the classifier."""
        placed = {name: value.to(self.device) for name, value in batch.items()}
        if isinstance(self.classifier, LinearHead) and "pixels" in placed:
            return self.backbone.features(placed["pixels"])
        return self.logits(placed)
