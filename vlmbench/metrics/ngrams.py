"""BLEU and ROUGE of two lists of words.

The numbers are torchmetrics', in double precision; they are written out here since a report scores hundreds of
thousands of answers, at 20 microseconds each instead of a millisecond, and should not wait for torch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence


def bleu(prediction: Sequence[str], answer: Sequence[str], orders: Sequence[int]) -> float:
    """Return BLEU of one sentence, without smoothing (Papineni et al. 2002, section 2.3).

    Args:
        prediction: Its words.
        answer: The words of the one reference.
        orders: The lengths of n-grams whose precisions are averaged: 1 to n for BLEU-n.

    Returns:
        In [0, 1]; 0 where no n-gram of one of the orders is shared.
    """
    logs = 0.0
    for n in orders:
        predicted, expected = _ngrams(prediction, n), _ngrams(answer, n)
        shared = (predicted & expected).total()
        if not shared:
            return 0.0
        logs += math.log(shared / predicted.total())
    penalty = min(0.0, 1 - len(answer) / len(prediction))
    return math.exp(logs / len(orders) + penalty)


def rouge(prediction: Sequence[str], answer: Sequence[str], n: int) -> float:
    """Return the F-measure of ROUGE-n (Lin 2004, section 2), in [0, 1]; 0 where nothing is shared."""
    predicted, expected = _ngrams(prediction, n), _ngrams(answer, n)
    return _f_measure((predicted & expected).total(), predicted.total(), expected.total())


def rouge_l(prediction: Sequence[str], answer: Sequence[str]) -> float:
    """Return the F-measure of ROUGE-L (Lin 2004, section 3): of the longest common subsequence of words."""
    row = [0] * (len(answer) + 1)
    for word in prediction:
        diagonal = 0
        for j, other in enumerate(answer, start=1):
            diagonal, row[j] = row[j], diagonal + 1 if word == other else max(row[j], row[j - 1])
    return _f_measure(row[-1], len(prediction), len(answer))


def _ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[i:] for i in range(n)), strict=False))


def _f_measure(shared: int, n_predicted: int, n_expected: int) -> float:
    return 2 * shared / (n_predicted + n_expected) if shared else 0.0
