"""Free text as answers: normalisation, words, and the strict reading of a text as one of several options.

Normalisation follows SQuAD (Rajpurkar et al. 2016, "SQuAD: 100,000+ Questions for Machine Comprehension of Text", and
its evaluation script): lower case, no punctuation, no articles, single spaces. It departs from SQuAD where medicine
would suffer: punctuation inside a word stays, since "2.5 cm" is not "25 cm"; signs that carry a value (`< > = + % °`, a
minus before a digit) stay; an article goes only where another word follows, so that "hepatitis A" keeps its letter.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import lru_cache

_ARTICLES = frozenset({"a", "an", "the"})
_PLAIN = str.maketrans({**dict.fromkeys("‘’‚‛ʼ`´", "'"), **dict.fromkeys("“”„‟", '"'), "\x00": " "})
_KEPT_BEFORE, _KEPT_AFTER = frozenset("<>=≤≥±+°"), frozenset("+%°")

# The look-behind starts a run of marks only once: without it, a very long run would take quadratic time.
_SENTENCE_END = re.compile(r"(?<![.;!?])[.;!?]+(?=\s|$)|[。\n]+")
_PREAMBLE = re.compile(r"^\W*(?:(?:the|my)\s+)?(?:(?:final|correct|best)\s+)?answer\b(?:\s+is\b)?\W*")
# In "Yes, there is no effusion" a noun follows; in "yes or no" and "Yes. No." the word is an answer of its own.
_STANDING_NO = re.compile(r"(?<![\w-])no\s*(?:$|[.,;:!?/)]|(?:and|or|but)\b)")
_REFUSALS = (["no", "idea"], ["no", "clue"], ["no", "opinion"], ["no", "answer"], ["no", "doubt"])

# Triggers of negation: the commonest of NegEx (Chapman et al. 2001, J Biomed Inform 34:301-310) and of plain English.
_NEGATION = (
    r"(?:not|no|non|cannot|never|neither|nor|none|without|\w+n't|absent|absence of|negative for|free of"
    r"|rul(?:es?|ed|ing) out|exclud(?:es?|ed|ing)|rather than|instead of|unlikely|incorrect|wrong|false)(?!\w)"
)
_NEGATION_BEFORE = re.compile(rf"(?<!\w){_NEGATION}")
_NEGATION_AFTER = re.compile(rf"\x00[^\s\x00]*(?: [^\s\x00]+){{0,2}} {_NEGATION}")
# After a letter it takes a verb: "(B) is wrong" negates the letter, "(B) no effusion" only spells its option out.
_LETTER_NEGATED = re.compile(
    rf"[^\w.;!?\n]*(?:(?:is|was|seems|can|could|must|should|has)\s+(?:\w+\s+){{0,2}}{_NEGATION}"
    r"|(?:cannot|\w+n't)(?!\w))"
)

_LETTERED = re.compile(r"\s*\(?([A-Za-z])\s?[.):]\s+(\S.*)", re.DOTALL)
_MARKED_LETTER = re.compile(
    r"^\W*([a-z])\s?(?::|\.(?!\w))"  # "B." or "b: mass" at the start
    r"|(?<![\w'])([a-z])\s?\)"  # "b)" or "(b)" anywhere
    r"|\b(?:option|choice)\s+([a-z])(?!\w)"
    r"|\b(?:answer|is)\b\W*([a-z])(?=\W*$|\s*[.,;:])"  # never the article of "the answer is a mass"
)


def fold(text: str) -> str:
    """Return the text in Unicode NFKC, case-folded, with plain quotes; lines and punctuation are kept."""
    return unicodedata.normalize("NFKC", text).translate(_PLAIN).casefold()


def tokens(text: str) -> list[str]:
    """Return the words of a text, normalised by the module's convention."""
    trimmed = [_trim(word) for word in fold(text).split()]
    words = [(word, bare) for word, bare in trimmed if word]
    return [word for i, (word, bare) in enumerate(words) if bare not in _ARTICLES or i == len(words) - 1]


# The cells of a study answer the same questions, mostly in the same words.
@lru_cache(maxsize=65536)
def normalise(text: str) -> str:
    """Return the words of a text joined by single spaces; equality of two such strings is exact match."""
    return " ".join(tokens(text))


def match_option(text: str, options: Sequence[str]) -> str | None:
    """Return the option that the whole text is, after normalisation, or None.

    Where every option carries a letter, as in "A. left" or "(b) right", the letter alone and the rest alone are the
    option too. Of options that are the same after normalisation the first is returned. An "a" before another letter
    is no article but a second answer: "A B" is none.
    """
    target = normalise(text)
    letters, bodies = _split_letters(options)
    if (
        target in letters
        and target != "a"
        and "a" in letters
        and any(_trim(word)[0] == "a" for word in fold(text).split())
    ):
        return None
    for names in (options, letters, bodies):
        for name, option in zip(names, options, strict=True):
            if target and normalise(name) == target:
                return option
    return None


def short_names(options: Sequence[str]) -> list[str]:
    """Return what tells options apart: their letters where each carries one, as in "B. left", else what they say."""
    return option_letters(options) or [normalise(option) for option in options]


def option_letters(options: Sequence[str]) -> list[str]:
    """Return the options' letters in lower case where each carries one, as in "B. left": multiple choice; else []."""
    letters, _ = _split_letters(options)
    return letters if all(letters) else []


def parse_choice(text: str, options: Sequence[str]) -> str | None:
    """Return the option that a text commits to, or None where it commits to none or to more than one.

    Strict on purpose: what a reader could argue about is None, counts as wrong, and its share is reported. The rules,
    in this order:

    1. The text equals an option (`match_option`).
    2. With yes and no among the options, the leading word decides, also after "the answer is": "No evidence of
       fracture" is no; "Yes, there is no effusion" is yes. Not where another option follows: any "yes" after a leading
       "no"; after a leading "yes" a "no" without its noun ("yes and no", "Yes. No."); any third option. "No idea"
       and "no doubt" are no answer.
    3. Exactly one option occurs as whole words, and is not negated. "no" is not in "normal", "not" or "cannot";
       "contrast" is not in "non-contrast"; of options inside each other the longest is meant; of options that share a
       word, as "right upper" and "upper lobe" do in "right upper lobe", none. Negated is an option with a trigger
       anywhere before it in its sentence, or within three words after it. What is left is not inferred: "it is not
       left" is None, and so is "it is not left, it is right".
    4. An option that is a letter, or carries one, occurs by that letter only where it is marked as one: "B.", "b)
       mass", "(b)", "option B", "the answer is B". No other option's letter may stand in the text, nor another option
       by rule 3. Negated is a letter with a trigger before it in its sentence, or that a verb with one follows: "not
       option B", "(B) is wrong"; but "B) no mass" is B.

    Args:
        text: What the model answered.
        options: The admissible answers; the one returned is spelled as here.
    """
    exact = match_option(text, options)
    if exact is not None:
        return exact
    letters, bodies = _split_letters(options)
    by_letter = {letter: option for letter, option in zip(letters, options, strict=True) if letter}
    by_words = {normalise(body): option for body, option in reversed(list(zip(bodies, options, strict=True)))}
    by_words = {words: option for words, option in by_words.items() if words and words not in by_letter}

    occurring, negated = _occurrences(fold(text), frozenset(by_words))
    if {"yes", "no"} <= by_words.keys():
        lead = tokens(_PREAMBLE.sub("", fold(text)))[:2]
        if lead[:1] in (["yes"], ["no"]):
            return by_words[lead[0]] if _stands_by(lead, fold(text), occurring) else None
    if negated:
        return None
    marked = _marked_letters(text, by_letter)
    if marked is None:
        return None
    found = {by_words[words] for words in occurring} | {by_letter[letter] for letter in marked}
    return found.pop() if len(found) == 1 else None


def _trim(word: str) -> tuple[str, str]:
    """Strip punctuation from a word, and return it also with what trails: "a" may be an article, "a)" is a letter."""
    start, end = 0, len(word)
    while start < end and not (_is_letter_or_digit(word[start]) or word[start] in _KEPT_BEFORE):
        if word[start] == "-" and word[start + 1 : start + 2].isdigit():
            break
        start += 1
    while end > start and not (_is_letter_or_digit(word[end - 1]) or word[end - 1] in _KEPT_AFTER):
        end -= 1
    return word[start:end], word[start:]


def _is_letter_or_digit(character: str) -> bool:
    # Combining marks are parts of letters in many scripts, though `str.isalnum` says no.
    return character.isalnum() or unicodedata.category(character)[0] == "M"


def _split_letters(options: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return each option's letter ("" if none) and the rest of it, of options such as "A. left" or "A"."""
    letters, bodies = _letters_and_bodies(tuple(options))
    return list(letters), list(bodies)


@lru_cache(maxsize=4096)
def _letters_and_bodies(options: tuple[str, ...]) -> tuple[list[str], list[str]]:
    matches = [_LETTERED.fullmatch(option) for option in options]
    letters = [match[1].lower() for match in matches if match]
    if options and len(set(letters)) == len(options):
        return letters, [match[2] for match in matches if match]
    names = [normalise(option) for option in options]
    return [name if re.fullmatch("[a-z]", name) else "" for name in names], list(options)


def _stands_by(lead: list[str], folded: str, occurring: set[str]) -> bool:
    """Whether a text that starts with yes or no keeps to it."""
    if lead in _REFUSALS or occurring - {"yes", "no"}:
        return False
    return "yes" not in occurring if lead[0] == "no" else not _STANDING_NO.search(folded)


def _marked_letters(text: str, letters: Iterable[str]) -> set[str] | None:
    """Return the option letters marked as such in a text, or None where one is negated or an unmarked one stands by."""
    folded = fold(text)
    places = {
        match.span(match.lastindex): match[match.lastindex]
        for match in _MARKED_LETTER.finditer(folded)
        if match.lastindex and match[match.lastindex] in letters
    }
    if _negates_any(folded, list(places)):
        return None
    marked = set(places.values())
    # "a" and "i" are words; any other single letter beside a marked one may be a second answer.
    standing = {word for word in tokens(folded) if word in letters} - {"a", "i"}
    return None if marked and standing - marked else marked


def _negates_any(folded: str, places: Sequence[tuple[int, int]]) -> bool:
    """Whether a marked letter, at one of the ascending places, is negated."""
    if any(_LETTER_NEGATED.match(folded, end) for _, end in places):
        return True
    # Only the last letter of each sentence need be looked at, since a trigger counts anywhere before it.
    starts = [0, *(match.end() for match in _SENTENCE_END.finditer(folded))]
    last = {bisect_right(starts, start): start for start, _ in places}
    return any(_NEGATION_BEFORE.search(folded, starts[n - 1], start) for n, start in last.items())


def _occurrences(folded: str, names: frozenset[str]) -> tuple[set[str], bool]:
    """Return which normalised options occur as whole words in a folded text, and whether any of them is negated."""
    occurring: set[str] = set()
    negated = False
    if not names:
        return occurring, negated
    pattern, anywhere = _whole_words(names)
    for sentence in _SENTENCE_END.split(folded):
        words = normalise(sentence)
        here, reached = set(), 0
        for match in anywhere.finditer(words):
            if match.end(1) > reached:  # otherwise it lies inside a longer option
                here.add(match[1])
                reached = match.end(1)
        if not here:
            continue
        occurring |= here
        # The options are blanked out first: "no" is an answer to yes or no, and a negation among other options.
        blanked = pattern.sub("\x00", words)
        trigger = _NEGATION_BEFORE.search(blanked)
        before = trigger is not None and trigger.start() < blanked.rindex("\x00")
        negated |= before or _NEGATION_AFTER.search(blanked) is not None
    return occurring, negated


@lru_cache(maxsize=4096)
def _whole_words(names: frozenset[str]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return a pattern that consumes the options, and one that consumes nothing and so finds overlapping ones."""
    longest_first = sorted(names, key=lambda name: (-len(name), name))
    # "left-sided" is left, but "no-one" is not no.
    parts = [rf"(?<!-){name}(?!-)" if name in {"yes", "no"} else re.escape(name) for name in longest_first]
    whole = rf"(?<!\w)(?<!non-)(?<!\d[.,])({'|'.join(parts)})(?!\w|[.,]\d)"
    return re.compile(whole), re.compile(f"(?={whole})")
