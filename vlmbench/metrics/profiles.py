"""Profiles: the same predictions scored by our own convention and by published ones, so that numbers can be compared.

`strict` is `vqa.evaluate`, and what records hold. The two published ones read a text by substrings and by words; why
that matters is what `disagreements` shows: "no" is a substring of "normal".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlmbench.metrics import vqa
from vlmbench.metrics.answers import match_option, option_letters
from vlmbench.metrics.bootstrap import resample
from vlmbench.metrics.diagnosis import OneVsRest
from vlmbench.metrics.ngrams import bleu, rouge, rouge_l
from vlmbench.metrics.published_words import alphanumeric, choice_letter, overlap, published_form
from vlmbench.metrics.weighted import ranking

Floats = NDArray[np.float64]
PROFILES = ("strict", "medvlmbench", "llava_med")
# MedVLMBench calls an open answer accurate from this recall on (eval/vqa.py).
ACCURATE_RECALL = 0.75


def evaluate(
    profile: str,
    predictions: Sequence[str],
    answers: Sequence[str],
    answer_types: Sequence[str],
    options: Sequence[Sequence[str]],
    option_scores: Sequence[ArrayLike] | None = None,
) -> dict[str, Floats]:
    """Score each example by a profile.

    Args:
        profile: One of `PROFILES`.
        predictions: N texts.
        answers: N reference answers.
        answer_types: N of `open` and `closed`.
        options: N lists of the admissible answers; multiple choice is told by their letters, as in "B. left".
        option_scores: As in `vqa.evaluate`; the published profiles read the text alone.

    Returns:
        Arrays (N,), NaN where a metric does not apply. For `strict` those of `vqa.evaluate`. Else:
        `closed_accuracy`: 1 if the reference is a SUBSTRING of the prediction, both in lower case; in `llava_med` both
        also normalised (`llava/eval/run_eval_batch.py`). In `medvlmbench` a question of multiple choice counts by its
        letter instead, see `published_words.choice_letter`.
        `choice_accuracy`: `medvlmbench` alone, the same on questions of multiple choice; absent where there are none.
        `closed_accuracy_skipping`: `llava_med` alone: as its `llava/eval/run_eval.py` had it, where a wrong answer that
        contains "yes" or "no" is in neither the numerator nor the denominator.
        `open_accuracy`: in `medvlmbench` 1 from a recall of 0.75 on; in `llava_med` 1 if the reference is a substring.
        `open_exact_match`, `open_precision`, `open_recall`, `open_token_f1`: see `published_words.Overlap`. Of
        `llava_med`, `open_recall` is the number that its paper prints for open questions.
        `closed_...`: the same four of closed questions (`llava_med`: `closed_recall` alone).
        `exact_match`, `precision`, `recall`, `token_f1`: the same four of all questions, `medvlmbench` alone.
        `open_bleu1` to `open_bleu4`: in `medvlmbench` as usual; in `llava_med` `open_bleu1` to `open_bleu3` take the
        n-grams of that one length, and `open_bleu4` is the usual one.
        `open_rouge1`, `open_rouge2`, `open_rouge_l`: `medvlmbench` alone.
        `accuracy`: closed and open accuracy together; the published code prints none.
        METEOR is left out: the published call wraps whole strings as if they were words, and needs WordNet's data.

    Raises:
        ValueError: The profile is unknown, lengths differ, or an answer type is unknown.
    """
    if profile == "strict":
        return vqa.evaluate(predictions, answers, answer_types, options, option_scores)
    if profile not in PROFILES:
        raise ValueError(f"profile {profile!r} is none of {', '.join(PROFILES)}")
    n = len(predictions)
    lengths = {"answers": len(answers), "answer_types": len(answer_types), "options": len(options)}
    if wrong := {name: length for name, length in lengths.items() if length != n}:
        raise ValueError(f"there are {n} predictions, but {wrong}")
    if unknown := sorted({str(kind) for kind in answer_types} - {"open", "closed"}):
        raise ValueError(f"answer_types must be 'open' or 'closed', got {unknown}")
    one: Callable[[str, str, str, Sequence[str]], dict[str, float]]
    one = _medvlmbench if profile == "medvlmbench" else _llava_med
    out: dict[str, Floats] = {}
    for i in range(n):
        for name, value in one(predictions[i], answers[i], answer_types[i], options[i]).items():
            out.setdefault(name, np.full(n, np.nan))[i] = value
    return out


def auroc_over_items(task: OneVsRest, *, n_resamples: int = 1000, confidence: float = 0.95) -> dict[str, float]:
    """Return the AUROC of a binary task as MedVLMBench's tables print it: the mean of its bootstrap resamples.

    Items are drawn as if no two were of one patient, and resamples with one class alone are skipped; the seed is its
    own, 42, though not the stream of random numbers.

    Args:
        task: A binary task.
        n_resamples: Number of resamples, 1,000 in the published code.
        confidence: Coverage of the percentile interval.

    Returns:
        `value`, `low` and `high`, NaN where every resample holds one class alone.
    """
    drawn = [
        ranking(task.scores[:, 0], task.truth[:, 0], weights)[0]
        for weights in resample(np.arange(len(task.truth)), n_resamples, seed=42)
    ]
    defined = np.concatenate(drawn)
    defined = defined[~np.isnan(defined)]
    if not defined.size:
        return dict.fromkeys(("value", "low", "high"), np.nan)
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return {"value": float(defined.mean()), "low": float(low), "high": float(high)}


def _medvlmbench(prediction: str, answer: str, kind: str, options: Sequence[str]) -> dict[str, float]:
    predicted, expected = published_form(prediction), published_form(answer)
    words = overlap(predicted, expected)
    named = dict(zip(("exact_match", "precision", "recall", "token_f1"), words, strict=True))
    scores = named | {f"{kind}_{name}": value for name, value in named.items()}
    if kind == "open":
        pair = predicted.split(), expected.split()
        plain = alphanumeric(predicted), alphanumeric(expected)
        scores |= {f"open_bleu{n}": bleu(*pair, range(1, n + 1)) for n in (1, 2, 3, 4)}
        scores |= {f"open_rouge{n}": rouge(*plain, n) for n in (1, 2)} | {"open_rouge_l": rouge_l(*plain)}
        accurate = float(words.recall >= ACCURATE_RECALL)
    elif letters := option_letters(options):
        truth = match_option(answer, options)
        letter = choice_letter(prediction, letters)
        accurate = float(truth is not None and letter == letters[list(options).index(truth)])
        scores["choice_accuracy"] = accurate
    else:
        accurate = float(answer.lower() in prediction.lower())
    return scores | {f"{kind}_accuracy": accurate, "accuracy": accurate}


def _llava_med(prediction: str, answer: str, kind: str, options: Sequence[str]) -> dict[str, float]:
    predicted, expected = published_form(prediction), published_form(answer)
    # Its functions normalise what has been normalised once more, which is not always the same.
    words = overlap(published_form(predicted), published_form(expected))
    contained = float(expected in predicted)
    scores = {f"{kind}_accuracy": contained, "accuracy": contained, f"{kind}_recall": words.recall}
    if kind == "closed":
        skipped = not contained and ("yes" in predicted or "no" in predicted)
        skipping = contained if "yes" in predicted or "no" in predicted else 0.0
        return scores | {"closed_accuracy_skipping": np.nan if skipped else skipping}
    pair = predicted.split(), expected.split()
    scores |= {f"open_bleu{n}": bleu(*pair, [n]) for n in (1, 2, 3)} | {"open_bleu4": bleu(*pair, range(1, 5))}
    return scores | {
        "open_exact_match": words.exact_match,
        "open_precision": words.precision,
        "open_token_f1": words.f1,
    }
