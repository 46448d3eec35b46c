"""Contrastive pre-training on captions: the symmetric cross-entropy of CLIP (Radford et al., 2021, figure 3)."""

from __future__ import annotations

import logging
from bisect import bisect_left
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vlmbench.domains.datamodule import Row
from vlmbench.modules import across
from vlmbench.modules.base import Optimisation, TunedModule
from vlmbench.tuning.heads import text_logits

log = logging.getLogger(__name__)
MAX_LOGIT_SCALE = 100.0  # Radford et al. (2021), section 2.5: clipped there to keep training stable


class CaptionModule(TunedModule):
    """A dual encoder that learns which caption belongs to which image of a batch."""

    def __init__(self, backbone: Any, optimisation: Optimisation | None) -> None:
        super().__init__(backbone, optimisation)
        # SigLIP was released with a scale above CLIP's cap.
        self.max_scale = max(MAX_LOGIT_SCALE, float(backbone.logit_scale.detach()))
        self._has_cut = False

    def collate(self, rows: list[Row]) -> dict[str, Any]:
        """Return `pixels` (B, 3, H, W), the captions' `tokens`, each (B, T), and `digests` (B,), the rows' `index`.

        Of a caption that is longer than the text tower's context the beginning counts, as in CLIP's own training.
        """
        captions = [example.caption for _, example, _ in rows]
        return {
            "pixels": torch.stack([pixels for *_, pixels in rows]),
            "tokens": self._tokens(captions),
            "digests": torch.tensor([_digest(caption) for caption in captions]),
            "index": torch.tensor([index for index, *_ in rows]),
        }

    def _tokens(self, captions: list[str]) -> dict[str, Tensor]:
        try:
            tokens: dict[str, Tensor] = self.backbone.tokenize(captions)
        except ValueError:
            if not self._has_cut:
                told = "Captions such as %r are longer than the text tower's context: their beginning counts."
                log.warning(told, max(captions, key=len)[:80])
                self._has_cut = True
            tokens = self.backbone.tokenize([self._beginning(caption) for caption in captions])
        return tokens

    def _beginning(self, caption: str) -> str:
        def too_long(end: int) -> bool:
            try:
                self.backbone.tokenize([caption[:end]])
            except ValueError:
                return True
            return False

        return caption[: bisect_left(range(1, len(caption) + 1), True, key=too_long)]

    def training_step(self, batch: dict[str, Any], _: int) -> Tensor:
        """Return the loss of one batch; the captions that all processes have of it are each other's negatives."""
        own = batch["index"] >= 0
        images, texts, digests = (across.joined(part[own]) for part in (*self._embeddings(batch), batch["digests"]))
        loss = self._loss(images, texts, digests)
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(images))
        return loss

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        """Log the loss; it depends on the batch size, which is the same in every run of a recipe."""
        rows = self.counted(batch["index"])
        self.log("val/loss", self._batch_loss(batch), batch_size=rows, sync_dist=across.world() > 1)

    def predict_step(self, batch: dict[str, Any], _: int) -> dict[str, Any]:
        """Return `index` and the `loss` of the batch for each of its rows."""
        return {"index": batch["index"].tolist(), "loss": [float(self._batch_loss(batch))] * len(batch["index"])}

    def output(self, batch: dict[str, Any]) -> Tensor:
        """Return the similarities of the batch."""
        return self._logits(*self._embeddings(batch))

    def _embeddings(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        texts = functional.normalize(self.backbone.encode_text(batch["tokens"]).float(), dim=-1)
        return self.backbone.encode_image(batch["pixels"].to(self.device)), texts

    def _logits(self, images: Tensor, texts: Tensor) -> Tensor:
        scale = self.backbone.logit_scale.float()
        # The value is capped, the gradient is not: at the cap the temperature must still be able to fall.
        scale = scale - (scale - self.max_scale).clamp(min=0).detach()
        return text_logits(images, texts, scale)

    def _batch_loss(self, batch: dict[str, Any]) -> Tensor:
        return self._loss(*self._embeddings(batch), batch["digests"])

    def _loss(self, images: Tensor, texts: Tensor, digests: Tensor) -> Tensor:
        # Images that share a caption word for word are each other's right answer too: small worlds repeat captions.
        same = (digests[:, None] == digests[None, :]).to(self.device).float()
        targets = same / same.sum(1, keepdim=True)
        logits = self._logits(images, texts)
        return (functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets)) / 2


def _digest(caption: str) -> int:
    """Return a number that stands for a caption in every process, as Python's own hash does not."""
    return int.from_bytes(blake2b(caption.encode(), digest_size=8).digest(), "big", signed=True)
