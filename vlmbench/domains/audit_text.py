"""An audit in plain words, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_SHOWN = 5
#: The pairs of splits that make a result too good.
_WEIGHTY = ("train-test", "test-train")
#: Per kind, in order of weight: what is counted (one, several), and what to do about it.
_WITHIN = {
    "groups": ("group (patient) is in both", "groups (patients) are in both"),
    "images": ("image is in both", "images are in both"),
    "pixels": ("image of {second} has an exact copy in {first}", "images of {second} have an exact copy in {first}"),
    "near_duplicates": (
        "image of {second} has a near-duplicate in {first}",
        "images of {second} have a near-duplicate in {first}",
    ),
    "questions": ("question is asked of the same image in both", "questions are asked of the same image in both"),
    "questions_on_copies": (
        "question of {second} is asked in {first} of a copy of its image",
        "questions of {second} are asked in {first} of a copy of their image",
    ),
}
_ACROSS = {
    "bytes": (
        "image of {second} is the same file as one in {first}",
        "images of {second} are the same files as some in {first}",
    ),
    **{kind: _WITHIN[kind] for kind in ("pixels", "near_duplicates", "questions_on_copies")},
}
_WORDS = {
    "groups": "group",
    "images": "image",
    "bytes": "same file",
    "pixels": "same pixels",
    "near_duplicates": "near-duplicate",
    "questions": "question",
    "questions_on_copies": "question",
}


def text(found: Mapping[str, Any]) -> str:
    """Say what an audit found, how much of it, examples, and what to do.

    Args:
        found: What `audit.audit` or `against.audit_against` returned.
    """
    return "\n".join(_across(found) if "against" in found else _within(found)) + "\n"


def _within(found: Mapping[str, Any]) -> list[str]:
    lines = []
    overlaps = False
    for pair, counts in _pairs(found):
        first, second = pair.split("-")
        body = _counted(counts, _WITHIN, first, second)
        overlaps |= bool(body)
        lines += [f"{first} and {second}: {'nothing in common' if not body else ''}".rstrip(), *body]
    if overlaps:
        lines += [
            "",
            "What to do: results on a test split that shares images or patients with train are too good. Choose",
            "another split, or have splits made by patient (`domain.split=ours`, or no split column). Where copies",
            "have different patients, give them one group in the table, and the splits will keep them together.",
        ]
    return lines + _limits(found, [("", found.get("flat_images", 0), found.get("unreadable", {}))])


def _across(found: Mapping[str, Any]) -> list[str]:
    ours, theirs = found["domain"], found["against"]
    lines: list[str] = []
    hints: list[str] = []
    for pair, counts in _pairs(found):
        first, second = (f"{name} {split}" for name, split in zip((ours, theirs), pair.split("-"), strict=True))
        shown = _SHOWN if pair in _WEIGHTY else 0
        body = _counted(counts, _ACROSS, first, second, shown)
        if body:
            lines += [f"{first} and {second}:", *body]
        if n := counts["groups"]:
            names = [str(one["what"]) for one in counts["examples"] if one["kind"] == "groups"][:shown]
            such = f", such as {', '.join(names)}" if names else ""
            hints.append(f"  {first} and {second}: {n:,} name{'s' * (n > 1)} of groups{such}")
        if n := counts["question_texts"]:
            hints.append(f"  {first} and {second}: {n:,} question text{'s' * (n > 1)}, of whatever image")
    if lines:
        lines += [
            "",
            "What to do: a model tuned on one of the two has seen what is named above. Do not report a transfer to a",
            "test split that shares images with the training split of the other, or leave the shared images out of it.",
        ]
    else:
        compared = "no image was compared" if "skipped" in found else "no image in common"
        lines = [f"{ours} and {theirs}: {compared}"]
    if hints:
        lines += [
            "",
            "Also in both, a hint alone, as names of groups may coincide in two datasets, and questions be alike:",
        ]
        lines += hints
    sides = zip(found.get("flat_images", ()), found.get("unreadable", ()), strict=True)
    return lines + _limits(found, [(f"{name}: ", *side) for name, side in zip((ours, theirs), sides, strict=False)])


def _pairs(found: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the pairs of splits; train and test first."""
    pairs = [(name, counts) for name, counts in found.items() if isinstance(counts, Mapping) and "examples" in counts]
    return sorted(pairs, key=lambda pair: pair[0] not in _WEIGHTY)


def _counted(
    counts: Mapping[str, Any], kinds: Mapping[str, tuple[str, str]], first: str, second: str, shown: int = _SHOWN
) -> list[str]:
    lines = []
    for kind, (one, several) in kinds.items():
        if n := counts.get(kind, 0):
            lines.append(f"  {n:,} {(one if n == 1 else several).format(first=first, second=second)}")
            for example in [each for each in counts["examples"] if each["kind"] == kind][:shown]:
                lines.append(f"      {_example(example)}")
    return lines


def _example(example: Mapping[str, Any]) -> str:
    what = example["what"]
    return f"{_WORDS[example['kind']]}: " + (what if isinstance(what, str) else " | ".join(map(str, what)))


def _limits(found: Mapping[str, Any], sides: Sequence[tuple[str, int, Mapping[str, str]]]) -> list[str]:
    lines = []
    for name, flat, unreadable in sides:
        if flat:
            lines.append(f"{name}{flat:,} image{'s' * (flat > 1)} without structure (such as black ones): compared by")
            lines.append("  grey level alone, so that any two black images are near-duplicates")
        if unreadable:
            lines.append(f"{name}{len(unreadable):,} image{'s' * (len(unreadable) > 1)} could not be read:")
            lines += [f"  {key}: {reason}" for key, reason in list(unreadable.items())[:20]]
            lines += ["  ..."] * (len(unreadable) > 20)
    if "skipped" in found:
        lines.append(str(found["skipped"]))
    return ["", *lines] if lines else []
