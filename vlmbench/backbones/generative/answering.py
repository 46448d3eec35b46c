"""Greedy answers and the likelihoods of options, from prompts that are read once for both."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vlmbench.backbones.generative.inputs import pad_rows
from vlmbench.backbones.generative.reading import Reading, read

# Rows that have ended are let go once they are a quarter: each time the others' keys and values are copied once, as
# every step copies them anyway.
ENDED = 0.25


def read_prompts(model: Any, batch: Mapping[str, Tensor], *, pad: int) -> Reading:
    """Return the reading of a batch of prompts, the beginnings that several share read once.

    Args:
        model: The network.
        batch: Its inputs; where beginnings are shared, these are the beginnings, and `rest_of` (B,) says which one
            belongs to each row, `rest_ids` and `rest_mask` (B, T) how the row goes on.
        pad: What fills up the prompts.
    """
    inputs = dict(batch)
    rest = [inputs.pop(key, None) for key in ("rest_ids", "rest_mask", "rest_of")]
    reading = read(model, inputs, pad=pad)
    ids, mask, of = rest
    if ids is None or mask is None or of is None:
        return reading
    reading = reading.rows(of.tolist())
    reading.read(ids, mask)
    return reading


def written(reading: Reading, tokenizer: Any, *, stops: Collection[int], ending: str, max_new_tokens: int) -> list[str]:
    """Return the greedy answers as text, without special tokens and up to `ending`, where text ends them too.

    Args:
        reading: The prompts; it reads on.
        tokenizer: Writes them.
        stops: Tokens that end an answer.
        ending: Text that does; empty for none.
        max_new_tokens: Longest answer.
    """

    def texts(answers: list[list[int]]) -> list[str]:
        return list(tokenizer.batch_decode(answers, skip_special_tokens=True))

    ended = (lambda ids: ending in texts([ids])[0]) if ending else None
    answers = texts(greedy(reading, stops=stops, ended=ended, max_new_tokens=max_new_tokens))
    return [text.split(ending)[0] for text in answers] if ending else answers


def greedy(
    reading: Reading, *, stops: Collection[int], ended: Callable[[list[int]], bool] | None, max_new_tokens: int
) -> list[list[int]]:
    """Return the likeliest tokens, one after another, up to where each row ends.

    Args:
        reading: The prompts; it reads on.
        stops: Tokens that end an answer and are no part of it.
        ended: Tells of the tokens so far whether they are a whole answer; None where tokens alone end it.
        max_new_tokens: Longest answer.
    """
    answers: list[list[int]] = [[] for _ in range(len(reading))]
    rows = list(range(len(reading)))  # of which the reading is
    open_rows = set(rows)
    for left in reversed(range(max_new_tokens)):
        tokens = reading.logits.argmax(-1)
        for row, token in zip(rows, tokens.tolist(), strict=True):
            if row not in open_rows:
                continue
            if token not in stops:
                answers[row].append(token)
            if token in stops or (ended and ended(answers[row])):
                open_rows.discard(row)
        if not open_rows or not left:
            break
        if len(open_rows) <= (1 - ENDED) * len(rows):
            kept = [place for place, row in enumerate(rows) if row in open_rows]
            reading, rows, tokens = reading.rows(kept), [rows[place] for place in kept], tokens[kept]
        reading.read(tokens[:, None])
    return answers


def likelihoods(reading: Reading, options: Sequence[Sequence[Sequence[int]]]) -> Tensor:
    """Return the summed log-likelihood (B, O) of each option's tokens behind its row; -inf pads rows.

    The rows themselves are read already: what is left are the options, as many at a time as there are rows, so that
    no more keys and values are held than the rows' own once more.

    Args:
        reading: The prompts; it stays as it is.
        options: For each row, the tokens of each option.
    """
    out = torch.full((len(reading), max((len(row) for row in options), default=0)), -torch.inf)
    cells = [(row, option, ids) for row, own in enumerate(options) for option, ids in enumerate(own)]
    cells.sort(key=lambda cell: len(cell[2]))  # stable: those of one length in the rows' order
    first = reading.logits.float().log_softmax(-1)
    device = first.device
    for start in range(0, len(cells), max(1, len(reading))):
        chunk = cells[start : start + max(1, len(reading))]
        rows = [row for row, _, _ in chunk]
        sums = first[torch.tensor(rows, device=device), torch.tensor([ids[0] for *_, ids in chunk], device=device)]
        behind = [ids[1:] for *_, ids in chunk]
        if behind[-1]:
            # The last token is only asked for; of the logits behind it nothing would be read.
            fed = pad_rows([ids[:-1] for *_, ids in chunk], 0, left=False)
            asked, counts = pad_rows(behind, 0, left=False), pad_rows([[1] * len(ids) for ids in behind], 0, left=False)
            logits = reading.rows(rows).read(fed.to(device), behind_each=True)
            values = logits.float().log_softmax(-1).gather(-1, asked.to(device)[..., None])[..., 0]
            sums = sums + (values * counts.to(device)).sum(-1)
        for (row, option, _), value in zip(chunk, sums.cpu(), strict=True):
            out[row, option] = value
    return out
