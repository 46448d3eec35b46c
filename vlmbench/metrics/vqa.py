"""Visual question answering: free text against a reference, example by example, in the `strict` profile.

Every metric is an array with one value an example and NaN where the metric does not apply, so that a mean is a
`nanmean` and a bootstrap needs no text. All open metrics see the same words, those of `answers.tokens`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlmbench.metrics.answers import match_option, normalise, option_letters, parse_choice, short_names, tokens
from vlmbench.metrics.diagnosis import nan_mean
from vlmbench.metrics.ngrams import bleu, rouge_l

Floats = NDArray[np.float64]

OPEN_METRICS = ("open_exact_match", "open_token_f1", "open_bleu1", "open_rouge_l")
CLOSED_METRICS = ("closed_accuracy", "closed_unparsed", "closed_majority")


def evaluate(
    predictions: Sequence[str],
    answers: Sequence[str],
    answer_types: Sequence[str],
    options: Sequence[Sequence[str]],
    option_scores: Sequence[ArrayLike] | None = None,
) -> dict[str, Floats]:
    """Score each example.

    Args:
        predictions: N texts; an empty one is an answer, and a wrong one.
        answers: N reference answers.
        answer_types: N of `open` and `closed`.
        options: N lists of the admissible answers, empty for an open question, possibly empty for a closed one.
        option_scores: N lists with the log-likelihood of each option, empty where there are no options.

    Returns:
        Arrays (N,), NaN where a metric does not apply:
        `open_exact_match`: 1 if prediction and answer are equal after normalisation.
        `open_token_f1`: F1 of the two bags of words (Rajpurkar et al. 2016).
        `open_bleu1`: BLEU of single words with brevity penalty (Papineni et al. 2002), sentence by sentence.
        `open_rouge_l`: F1 of the longest common subsequence of words (Lin 2004).
        `closed_accuracy`: 1 if `answers.parse_choice` reads the answer; without options, equality after normalisation.
        `closed_unparsed`: 1 if it reads no option at all; NaN without options.
        `closed_majority`: 1 if the answer is the most frequent one among the evaluated closed questions with the same
        set of options (of equally frequent ones the first met): what a model scores that knows the answers but sees
        no image. Of options that carry letters, as in "B. left", the letters alone count: it is the score of always
        answering the most frequent letter. The most frequent answer is not chosen anew in a bootstrap.
        `closed_accuracy_likelihood`: 1 if the answer alone has the highest option score; a tie commits to nothing and
        is wrong. Only where `option_scores` has any.
        `choice_accuracy`, `choice_accuracy_likelihood`: the two on multiple choice alone, that is where the options
        carry letters, as in "B. left". Only where there are such questions.
        `accuracy`: `closed_accuracy` and `open_exact_match` together.

    Raises:
        ValueError: Lengths differ, an answer type is unknown, a closed answer is not among its options, or option
            scores do not fit the options.
    """
    n = len(predictions)
    lengths = {"answers": len(answers), "answer_types": len(answer_types), "options": len(options)}
    if option_scores is not None:
        lengths["option_scores"] = len(option_scores)
    if wrong := {name: length for name, length in lengths.items() if length != n}:
        raise ValueError(f"there are {n} predictions, but {wrong}")
    if unknown := sorted({str(kind) for kind in answer_types} - {"open", "closed"}):
        raise ValueError(f"answer_types must be 'open' or 'closed', got {unknown}")

    out = {name: np.full(n, np.nan) for name in (*OPEN_METRICS, *CLOSED_METRICS)}
    is_open = [kind == "open" for kind in answer_types]
    truths: dict[int, str] = {}
    for i in range(n):
        if is_open[i]:
            for name, value in zip(OPEN_METRICS, _open_scores(predictions[i], answers[i]), strict=True):
                out[name][i] = value
            continue
        truths[i] = _closed_answer(i, answers[i], options[i])
        if options[i]:
            choice = _choice(predictions[i], tuple(options[i]))
            out["closed_accuracy"][i] = choice == truths[i]
            out["closed_unparsed"][i] = choice is None
        else:
            out["closed_accuracy"][i] = normalise(predictions[i]) == truths[i]
    _fill_majority(out["closed_majority"], truths, options)
    if option_scores is not None and any(len(np.atleast_1d(scores)) for scores in option_scores):
        out["closed_accuracy_likelihood"] = _likelihood_accuracy(truths, options, option_scores)
    lettered = np.array([bool(option_letters(choices)) for choices in options], dtype=bool)
    if lettered.any():
        for name in ("closed_accuracy", "closed_accuracy_likelihood"):
            if name in out:
                out[name.replace("closed", "choice")] = np.where(lettered, out[name], np.nan)
    out["accuracy"] = np.where(is_open, out["open_exact_match"], out["closed_accuracy"])
    return out


def summary(values: Mapping[str, ArrayLike]) -> dict[str, float]:
    """Return the mean of each per-example metric over the examples that it applies to; NaN if there are none."""
    return {name: nan_mean(column) for name, column in values.items()}


def token_f1(prediction: str, answer: str) -> float:
    """Return the F1 of the two bags of words; if either is empty, whether both are (as in SQuAD's script)."""
    predicted, expected = Counter(tokens(prediction)), Counter(tokens(answer))
    if not predicted or not expected:
        return float(predicted == expected)
    return 2 * (predicted & expected).total() / (predicted.total() + expected.total())


@lru_cache(maxsize=65536)
def _open_scores(prediction: str, answer: str) -> tuple[float, float, float, float]:
    predicted, expected = tokens(prediction), tokens(answer)
    bleu1, longest = bleu(predicted, expected, [1]), rouge_l(predicted, expected)
    return float(predicted == expected), token_f1(prediction, answer), bleu1, longest


@lru_cache(maxsize=65536)
def _choice(prediction: str, options: tuple[str, ...]) -> str | None:
    return parse_choice(prediction, options)


@lru_cache(maxsize=65536)
def _truth(answer: str, options: tuple[str, ...]) -> str | None:
    return match_option(answer, options)


def _closed_answer(row: int, answer: str, options: Sequence[str]) -> str:
    """Return the option that is the reference answer, or without options the normalised answer."""
    if not options:
        return normalise(answer)
    truth = _truth(answer, tuple(options))
    if truth is None:
        raise ValueError(
            f"row {row}: the answer {answer!r} is none of the options {list(options)}; mend the domain's options, "
            "or give the question none to have it scored by equality"
        )
    return truth


def _fill_majority(out: Floats, truths: Mapping[int, str], options: Sequence[Sequence[str]]) -> None:
    kinds: dict[frozenset[str], Counter[str]] = {}
    keys, answers = {}, {}
    for i, truth in truths.items():
        names = dict(zip(options[i], short_names(options[i]), strict=True))
        keys[i], answers[i] = frozenset(names.values()), names.get(truth, truth)
        kinds.setdefault(keys[i], Counter())[answers[i]] += 1
    for i, answer in answers.items():
        out[i] = kinds[keys[i]].most_common(1)[0][0] == answer


def _likelihood_accuracy(
    truths: Mapping[int, str], options: Sequence[Sequence[str]], option_scores: Sequence[ArrayLike]
) -> Floats:
    out = np.full(len(options), math.nan)
    for i, truth in truths.items():
        scores = np.asarray(option_scores[i], dtype=np.float64)
        if scores.shape != (len(options[i]),) or np.isnan(scores).any():
            raise ValueError(
                f"row {i}: option_scores must hold one number for each of the options {list(options[i])}, got {scores}"
            )
        if options[i]:
            best = np.flatnonzero(scores == scores.max())
            out[i] = len(best) == 1 and options[i][best[0]] == truth
    return out
