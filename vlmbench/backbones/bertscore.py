"""BERTScore (Zhang et al. 2020, "BERTScore: Evaluating Text Generation with BERT", ICLR): F1 of matched tokens.

Each token of one text is matched to the token of the other whose contextual embedding is nearest by cosine; precision
is the mean over the prediction's tokens, recall over the reference's. No weighting by inverse document frequency and no
rescaling, as MedVLMBench calls it. As in the authors' package the special tokens at both ends can be matched but are
not averaged over. torchmetrics 1.9 is not used: of several pairs in one call it returns the scores of other pairings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vlmbench.errors import UserError

# A tokenizer without a limit of its own says one of 1e30; longer answers are cut at what BERT takes.
_LONGEST = 512


class BertscoreError(UserError):
    """The model cannot be loaded or used; the message says what to do."""


class Scorer:
    """A text encoder that scores pairs of texts.

    Args:
        source: Folder in the hub's format, or the name of a model on the hub.
        num_layers: The layer whose output is compared, counted from 1; 0 takes the last.
        batch_size: Pairs at a time.
        download: Whether a model that is not on this machine may be fetched from the hub.

    Raises:
        BertscoreError: The model is not here, holds no safetensors, or has fewer layers.
    """

    def __init__(self, source: str, *, num_layers: int = 0, batch_size: int = 64, download: bool = False) -> None:
        from transformers import AutoModel, AutoTokenizer

        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(source, local_files_only=not download)
            # Weights as pickles would execute what they hold.
            self.model: Any = AutoModel.from_pretrained(source, local_files_only=not download, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise BertscoreError(
                f"encoder={source} cannot be loaded: {str(error).splitlines()[0]} Name a folder with config.json, "
                "tokenizer and model.safetensors, or a model of the hub with download=true."
            ) from error
        layers = self.model.config.num_hidden_layers
        if num_layers > layers:
            raise BertscoreError(f"num_layers={num_layers}, but encoder={source} has {layers}. Take at most these.")
        self.num_layers = num_layers or layers
        self.batch_size = batch_size
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model.eval().to(self.device)
        positions = getattr(self.model.config, "max_position_embeddings", _LONGEST)
        self.longest = min(self.tokenizer.model_max_length, positions, _LONGEST)

    @property
    def digest(self) -> str:
        """SHA-256 of the weights as loaded."""
        found = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            found.update(name.encode())
            found.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return found.hexdigest()

    @torch.inference_mode()
    def score(self, predictions: Sequence[str], answers: Sequence[str]) -> Tensor:
        """Return precision, recall and F1 (N, 3) of N pairs; all three are 0 where either text has no token."""
        pairs = list(zip(predictions, answers, strict=True))
        # Texts of like length share a batch, so that little is padded.
        order = sorted(range(len(pairs)), key=lambda i: max(map(len, pairs[i])))
        out = torch.zeros(len(pairs), 3)
        for start in range(0, len(order), self.batch_size):
            places = order[start : start + self.batch_size]
            out[places] = self._score([pairs[i] for i in places]).float().cpu()
        return out

    def _score(self, pairs: Sequence[tuple[str, str]]) -> Tensor:
        (one, mask, counted), (other, other_mask, other_counted) = (
            self._embed(texts) for texts in zip(*pairs, strict=True)
        )
        similarity = (one @ other.transpose(1, 2)) * (mask[:, :, None] * other_mask[:, None, :])
        precision = _mean(similarity.amax(dim=2), counted)
        recall = _mean(similarity.amax(dim=1), other_counted)
        empty = (counted.sum(dim=1) == 0) | (other_counted.sum(dim=1) == 0)
        f1 = 2 * precision * recall / (precision + recall)
        scores = torch.stack([precision, recall, f1], dim=1)
        return torch.where(empty[:, None], torch.zeros_like(scores), scores)

    def _embed(self, texts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Unit embeddings (B, T, D), the mask of tokens (B, T), and that of tokens that are averaged over."""
        batch = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self.longest,
            return_special_tokens_mask=True,
            return_tensors="pt",
        ).to(self.device)
        special = batch.pop("special_tokens_mask")
        hidden = self.model(**batch, output_hidden_states=True).hidden_states[self.num_layers]
        mask = batch["attention_mask"].to(hidden.dtype)
        return normalize(hidden, dim=-1), mask, mask * (1 - special)


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    return (values * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
