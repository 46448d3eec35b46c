"""What goes into a generative model: what a processor makes of an image, and how rows become a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class ImageInputs:
    """What a processor makes of one image.

    Attributes:
        tensors: The model's inputs, with the leading dimension that the processor gives them.
        tokens: Tokens that the image takes in the text.
    """

    tensors: dict[str, Tensor]
    tokens: int

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return sum(value.nbytes for value in self.tensors.values())


def pad_rows(rows: Sequence[Sequence[int]], fill: int, *, left: bool) -> Tensor:
    """Return rows of numbers as one tensor (B, T), the shorter ones filled up on one side."""
    length = max(len(row) for row in rows)
    blanks = [[fill] * (length - len(row)) for row in rows]
    joined = [[*blank, *row] if left else [*row, *blank] for row, blank in zip(rows, blanks, strict=True)]
    return torch.tensor(joined, dtype=torch.long)


def join_images(images: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Join the tensors of several images along their first dimension; tiles are padded to the most that one has."""
    joined = {}
    for key in images[0]:
        values = [image[key] for image in images]
        if len({value.shape[1:] for value in values}) > 1:
            most = max(value.shape[1] for value in values)
            blank = [value.new_zeros((value.shape[0], most - value.shape[1], *value.shape[2:])) for value in values]
            values = [torch.cat(pair, dim=1) for pair in zip(values, blank, strict=True)]
        joined[key] = torch.cat(values)
    return joined


@dataclass(frozen=True)
class Shared:
    """Prompts of which several begin with one image, as beginnings and what follows them.

    Attributes:
        rows: For each beginning a row that has it.
        beginnings: Their tokens.
        rest: `rest_ids` and `rest_mask` (B, R), left-padded, and `rest_of` (B,), the beginning of each row.
    """

    rows: list[int]
    beginnings: list[list[int]]
    rest: dict[str, Tensor]

    @property
    def places(self) -> int:
        """Places that the longest row takes with all that fills it up."""
        return max(map(len, self.beginnings)) + self.rest["rest_ids"].shape[1]


def shared_beginnings(
    prompts: Sequence[Sequence[int]], images: Sequence[str], *, image_token: int, pad: int
) -> Shared | None:
    """Return prompts by their beginnings; None where no two begin alike, or less than two tokens follow an image.

    A beginning ends one token behind the image: from there on positions only count up, whatever the image took. Only
    causal attention makes a beginning the same whatever follows.

    Args:
        prompts: Tokens of each.
        images: Name of each row's image; an empty one is like no other.
        image_token: On whose places the image stands.
        pad: What fills rows up.
    """
    of: dict[tuple[object, ...], int] = {}
    beginnings: list[list[int]] = []
    rests, numbers, rows = [], [], []
    for row, (ids, image) in enumerate(zip(prompts, images, strict=True)):
        length = min(len(ids) - ids[::-1].index(image_token) + 1, len(ids) - 1)
        number = of.setdefault((image or row, *ids[:length]), len(of))
        if number == len(beginnings):
            beginnings.append(list(ids[:length]))
            rows.append(row)
        rests.append(ids[length:])
        numbers.append(number)
    if len(beginnings) == len(prompts) or any(ids[-1] == image_token for ids in beginnings):
        return None
    rest = {
        "rest_ids": pad_rows(rests, pad, left=True),
        "rest_mask": pad_rows([[1] * len(ids) for ids in rests], 0, left=True),
        "rest_of": torch.tensor(numbers),
    }
    return Shared(rows, beginnings, rest)
