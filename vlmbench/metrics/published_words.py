"""Words as published VQA evaluations count them: their normalisation, their bags of words, their option letters.

The rules are those of MedVLMBench (arXiv 2506.17337; `eval/utils.py`, `eval/metrics.py`) and of LLaVA-Med (Li et al.
2023; `llava/eval/eval_metrics/`), which share them. They are kept with their oddities, since published numbers contain
these; ours are in `answers`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
# The published call passes `re.UNICODE`, which is 32, where `re.sub` takes the number of replacements.
_PERIODS_REMOVED = 32
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {word: str(i) for i, word in enumerate(_NUMBER_WORDS)}
_NUMBERS["none"] = "0"
_ARTICLES = frozenset({"a", "an", "the"})
# A contraction is known by its form with any one apostrophe left out.
_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've
somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll
that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've
weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll
why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
_CONTRACTIONS = {
    full[:i] + full[i + 1 :]: full
    for full in _CONTRACTED.split()
    for i, character in enumerate(full)
    if character == "'"
}
_CONTRACTIONS["somebody'd"] = "somebodyd"  # published the wrong way round

_CUES = (
    re.compile(r"(?:final\s+answer|answer\s+is|answer|ans|choice|option)\s*[:\-]?\s*[(\[]?\s*([a-z])", re.IGNORECASE),
    re.compile(r"correct\s+answer\s+is\s*[(\[]?\s*([a-z])", re.IGNORECASE),
    re.compile(r"[(\[]\s*([a-z])\s*[)\]]", re.IGNORECASE),
    re.compile(r"\*\*\s*([a-z])\s*\*\*", re.IGNORECASE),
    re.compile(r"\b([a-z])\b", re.IGNORECASE),
)


class Overlap(NamedTuple):
    """How the words of a prediction and a reference overlap, each in [0, 1].

    Attributes:
        exact_match: What is published under this name: the number of distinct reference words that occur in the
            prediction, by the number of words of the prediction. No exact match, but a kind of word precision.
        precision: Share of the prediction's words that occur in the reference.
        recall: Of shared and missing words, the share that is shared; a shared word counts as often as the PREDICTION
            says it, a missing one as often as the reference does.
        f1: Harmonic mean of the two. All are 0 where either text is empty.
    """

    exact_match: float
    precision: float
    recall: float
    f1: float


@lru_cache(maxsize=65536)
def published_form(text: str) -> str:
    """Return a text in lower case, normalised as the VQA challenge's evaluation does, words joined by single spaces.

    A mark of punctuation is deleted where it stands beside a space anywhere in the text, or where the text has a comma
    between digits; otherwise it becomes a space. Periods are deleted unless a digit follows, the first 32 of a text.
    Number words up to ten become digits ("none" is 0), articles go, contractions get their apostrophe back.
    """
    text = text.lower()
    digits = _DIGIT_COMMA.search(text) is not None
    marked = text
    for mark in _PUNCTUATION:
        if mark in text:
            beside_space = f"{mark} " in text or f" {mark}" in text
            marked = marked.replace(mark, "" if beside_space or digits else " ")
    words = (_NUMBERS.get(word, word) for word in _PERIOD.sub("", marked, count=_PERIODS_REMOVED).split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


@lru_cache(maxsize=65536)
def overlap(prediction: str, answer: str) -> Overlap:
    """Return how two normalised texts overlap."""
    predicted, expected = Counter(prediction.split()), Counter(answer.split())
    shared = predicted.keys() & expected.keys()
    exact = len(shared) / predicted.total() if predicted else 0.0
    if not shared:
        return Overlap(exact, 0.0, 0.0, 0.0)
    hits = sum(predicted[word] for word in shared)
    missed = sum(count for word, count in expected.items() if word not in shared)
    precision, recall = hits / predicted.total(), hits / (hits + missed)
    return Overlap(exact, precision, recall, 2 * precision * recall / (precision + recall))


def alphanumeric(text: str) -> list[str]:
    """Return the words of which ROUGE is published: runs of `[a-z0-9]`, torchmetrics' default."""
    return re.findall("[a-z0-9]+", text.lower())


def choice_letter(text: str, letters: Sequence[str]) -> str | None:
    """Return the option letter that MedVLMBench reads in an answer, in lower case, or None.

    The first of these that finds an admissible letter: after a word such as "answer" or "option", after "correct answer
    is", in brackets, between double asterisks, standing alone. The first two do not ask that the letter is a word:
    "the answer is cardiomegaly" is C.
    """
    for cue in _CUES:
        found = cue.search(re.sub(r"\s+", " ", text.strip()))
        if found and found[1].lower() in letters:
            return found[1].lower()
    return None
