"""CoOp: learned context vectors in place of a prompt's words (Zhou et al., IJCV 2022, arXiv 2109.01134).

A prompt is [V]1 ... [V]M [CLASS]. with M vectors of the token embedding's width, the class's name behind them, one
context for all classes or one for each (section 3.2). Towers and temperature stay frozen; the loss is that of the text
classifier. With several labels an image each class is decided between a present and an absent prompt, each side with a
context of its own (DualCoOp, Sun et al., NeurIPS 2022, arXiv 2206.09541; its regional pooling and asymmetric loss need
feature maps, and are left out).

Each family feeds its text tower in its own way. All look token ids up in one `nn.Embedding`: prompts are tokenised with
placeholders by the backbone itself, and what the lookup gives at their positions is replaced by the context.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from vlmbench.errors import UserError
from vlmbench.tuning.heads import class_embeddings, text_logits

# Words that are a single token for most tokenizers, wherever they stand; two that are tell where a placeholder is.
PLACEHOLDERS = (
    *("x", "a", "the", "of", "in", "on", "with", "and", "is", "or", "no", "to"),
    *("image", "photo", "scan", "lung"),
)
STD = 0.02  # of the initial vectors, section 4.1


class UnpromptableError(UserError):
    """A text tower, or a tokenizer, in which context vectors have no place."""


class ContextClassifier(nn.Module):
    """Class embeddings from prompts whose context is learned.

    Attributes:
        contexts: (S, G, M, E): sides (present, absent), one group or one a class, vectors, width.

    Args:
        backbone: A contrastive backbone, frozen.
        names: Every way of saying a class, all classes behind each other.
        owners: For each name the class it belongs to, 0..C-1; the embeddings of a class's names are averaged.
        length: Number of context vectors M; not used where `words` are given.
        words: What the context says at first, for example "a photo of a"; empty draws vectors from N(0, 0.02).
        class_specific: Whether each class has a context of its own.
        multi_label: Whether each class is decided by itself, by a second context for its absence.

    Raises:
        UnpromptableError: The tokenizer has no single token to hold a vector's place, a word takes several tokens, a
            prompt is longer than the text tower's context, or the tower looks no token up.
    """

    def __init__(
        self,
        backbone: Any,
        names: Sequence[str],
        owners: Sequence[int],
        *,
        length: int = 16,
        words: str = "",
        class_specific: bool = False,
        multi_label: bool = False,
    ) -> None:
        super().__init__()
        said = words.split()
        endings = [f"{name}." for name in names]
        self._owners = list(owners)
        try:
            self._tokens, self._slots = placed_slots(backbone, endings, len(said) or length)
        except ValueError as error:  # more tokens than the context has
            raise UnpromptableError(
                f"a context of {len(said) or length} vectors has no room before the longest class name: {error} Lower "
                "finetune.context_length, or say it in fewer finetune.words."
            ) from error
        self._embedding = token_embedding(backbone, self._tokens)
        weight = backbone.model.get_submodule(self._embedding).weight
        groups = max(owners) + 1 if class_specific else 1
        size = (2 if multi_label else 1, groups, len(said) or length, weight.shape[1])
        drawn = torch.randn(size) * STD
        if said:
            drawn = weight.detach()[ids_of_words(backbone, said, endings[0])].float().cpu().expand(size).clone()
        self.contexts = nn.Parameter(drawn)
        self._kept: tuple[object, list[Tensor]] | None = None

    def forward(self, backbone: Any, embeddings: Tensor) -> Tensor:
        """Return logits (B, C) for what `backbone.encode_image` gives."""
        scale = backbone.logit_scale.detach().float()
        logits = [text_logits(embeddings, classes, scale) for classes in self._classes(backbone)]
        return logits[0] if len(logits) == 1 else logits[0] - logits[1]

    def _classes(self, backbone: Any) -> list[Tensor]:
        """Return the class embeddings (C, D) of each side; kept between batches while the contexts do not change."""
        if torch.is_grad_enabled():
            self._kept = None  # a step may follow, and a fused optimiser's leaves the version as it is
            return [self.encode(backbone, side) for side in self.contexts]
        state = self.contexts._version, self.contexts.device
        if self._kept is None or self._kept[0] != state:
            self._kept = state, [self.encode(backbone, side) for side in self.contexts]
        return self._kept[1]

    def encode(self, backbone: Any, side: Tensor) -> Tensor:
        """Return the class embeddings (C, D) that contexts (G, M, E) give."""
        backbone.model.eval()  # a frozen tower drops nothing out
        per_prompt = side[self._owners] if len(side) > 1 else side.expand(len(self._owners), -1, -1)
        with written(backbone.model.get_submodule(self._embedding), self._slots, per_prompt):
            encoded = backbone.encode_text(self._tokens)
        return class_embeddings(encoded, self._owners)


def placed_slots(backbone: Any, endings: Sequence[str], length: int) -> tuple[dict[str, Tensor], Tensor]:
    """Tokenise prompts of `length` placeholders and an ending, and find the placeholders.

    They are where the tokens differ when another word takes their place.

    Returns:
        The tokens, each (P, T), and the positions (P, length) of the placeholders.

    Raises:
        UnpromptableError: No two words are tokens of their own.
        ValueError: A prompt is longer than the context.
    """
    for pair in pairwise(PLACEHOLDERS):
        # Two first: words of several tokens could fill the context.
        if _differing(backbone, endings[:1], 2, pair) and (found := _differing(backbone, endings, length, pair)):
            return found
    raise UnpromptableError(
        "the tokenizer has no two common words that are one token each, so that context vectors have no place among "
        "its tokens. finetune=coop does not apply to this model; take finetune=clip_adapter."
    )


def _differing(
    backbone: Any, endings: Sequence[str], length: int, words: tuple[str, str]
) -> tuple[dict[str, Tensor], Tensor] | None:
    """Return the tokens of prompts of the first word, and where they differ from those of the second.

    None where that is not once for each of the `length` words, one behind the other.
    """
    tokens, others = (backbone.tokenize([" ".join([word] * length + [ending]) for ending in endings]) for word in words)
    if ids_of(tokens).shape != ids_of(others).shape:
        return None
    differs = ids_of(tokens) != ids_of(others)
    if not bool((differs.sum(1) == length).all()):
        return None
    slots = differs.nonzero()[:, 1].view(len(endings), length)
    return (tokens, slots) if bool((slots.diff(dim=1) == 1).all()) else None


def ids_of(tokens: Mapping[str, Tensor]) -> Tensor:
    """Return the token ids (P, T) among what a backbone's tokenizer gives."""
    return tokens["input_ids"] if "input_ids" in tokens else tokens["text"]


def token_embedding(backbone: Any, tokens: Mapping[str, Tensor]) -> str:
    """Return the path of the module that looks up token ids: the embedding that the text tower calls with them.

    Raises:
        UnpromptableError: There is none, or there are several.
    """
    one = {key: value[:1] for key, value in tokens.items()}
    ids, found = ids_of(one), []

    def hook_of(path: str) -> Any:
        def look(_: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> None:
            if inputs and torch.equal(inputs[0].cpu(), ids):
                found.append(path)

        return look

    lookups = {path: module for path, module in backbone.model.named_modules() if isinstance(module, nn.Embedding)}
    hooks = [module.register_forward_hook(hook_of(path)) for path, module in lookups.items()]
    try:
        with torch.no_grad():
            backbone.encode_text(one)
    finally:
        for hook in hooks:
            hook.remove()
    if len(found) != 1:
        raise UnpromptableError(
            f"the text tower looks its tokens up in {len(found)} embeddings instead of one, so that context vectors "
            "have no place. finetune=coop does not apply to this model; take finetune=clip_adapter."
        )
    return found[0]


@contextmanager
def written(embedding: nn.Module, slots: Tensor, contexts: Tensor) -> Iterator[None]:
    """Let a lookup give `contexts` (P, M, E) at positions `slots` (P, M) of P prompts, for the block."""

    def write(_: nn.Module, __: tuple[Tensor, ...], looked_up: Tensor) -> Tensor:
        index = slots.to(looked_up.device)[..., None].expand_as(contexts)
        return looked_up.scatter(1, index, contexts.to(looked_up))

    hook = embedding.register_forward_hook(write)
    try:
        yield
    finally:
        hook.remove()


def ids_of_words(backbone: Any, words: Sequence[str], ending: str) -> Tensor:
    """Return the token (M,) of each of M words that stand before an ending.

    Raises:
        UnpromptableError: A word is several tokens.
    """
    held, slots = placed_slots(backbone, [ending], len(words))
    expected, own = ids_of(held), ids_of(backbone.tokenize([" ".join([*words, ending])]))
    apart = torch.ones_like(expected, dtype=torch.bool).scatter(1, slots, False)
    if own.shape != expected.shape or not torch.equal(own[apart], expected[apart]):
        raise UnpromptableError(
            f"finetune.words={' '.join(words)!r}: a word of it is more than one token of this model. Take words that "
            "it knows, or leave finetune.words empty."
        )
    return own[0, slots[0]]
