"""The recommendation in sentences."""

from __future__ import annotations

import math

from vlmbench.metrics.comparison import Difference
from vlmbench.reporting.recommendation import Advice, Option
from vlmbench.reporting.study import Settings
from vlmbench.reporting.text import count_text, interval_text, name_text, seconds_text, value_text
from vlmbench.reporting.wording import FEW_GROUPS, difference_text


def budget_text(settings: Settings) -> str:
    """The budget in words."""
    limits = (
        (settings.gpu_hours, "at most {:g} device hours a cell"),
        (settings.memory_gib, "at most {:g} GiB of memory"),
        (settings.labelled, "at most {:g} labelled training examples"),
    )
    told = [words.format(value) for value, words in limits if value is not None]
    return ", ".join(told) if told else "no limit was given (gpu_hours, memory_gib, labelled)"


def place_text(advice: Advice) -> str:
    """The domains of an advice."""
    return advice.domains[0] if len(advice.domains) == 1 else f"all {len(advice.domains)} domains together"


def expected_text(option: Option) -> str:
    """What an option reaches on the test set, with its interval inside 0 to 1."""
    found = option.expected
    if isinstance(found, str):
        return f"not known: {found}"
    if math.isnan(found.low):
        return f"{value_text(None if math.isnan(found.estimate) else found.estimate)}, no interval: {found.reason}"
    return f"{value_text(found.estimate)} {interval_text(found.low, found.high)}"


def cost_text(option: Option) -> str:
    """What an option took."""
    hours, gib, labelled = (option.largest(name) for name in ("hours", "gib", "labelled"))
    most = "up to " if len(option.parts) > 1 else ""
    parts = [
        "time not recorded" if hours is None else f"{most}{seconds_text(hours * 3600)} of one device",
        "memory not recorded" if gib is None else f"{most}{gib:.1f} GiB",
        "labels not recorded"
        if labelled is None
        else _unlabelled(option)
        if labelled == 0
        else f"{most}{count_text(labelled)} labelled training examples, and the validation split",
    ]
    return ", ".join(parts)


def _unlabelled(option: Option) -> str:
    chose = any(row.mapping("prompts") for part in option.parts for row in part.side.rows)
    return "no labelled example" + (" to train on, but the validation split to choose its prompt" if chose else "")


def loss_text(option: Option, settings: Settings) -> str:
    """How far an option is behind the best on the test set, without more than its interval says."""
    found = option.loss
    if found is None:
        return ""
    if isinstance(found, str):
        return f"the difference is not known: {found}"
    numbers = f"on the test set the best minus this one is {difference_text(found)}"
    if math.isnan(found.low) or found.low > 0:
        return numbers
    if found.high < 0:
        return f"{numbers}, which validation did not foresee"
    within = -settings.margin < found.low and found.high < settings.margin
    return f"{numbers}: " + ("too little to matter" if within else "it cannot tell the two apart")


def advice_text(advice: Advice, settings: Settings) -> list[str]:
    """The recommendation as sentences."""
    metric = name_text(advice.metric)
    if advice.note:
        told = [f"Nothing is recommended: {advice.note}."]
        told += [
            f"{one.label}: {metric} {expected_text(one)} on the test set; {cost_text(one)}." for one in advice.options
        ]
        return told
    best, *others = advice.options
    best_of = _fitting(advice)
    if advice.ranked < advice.fitting:
        best_of = f"the {advice.ranked} that validation compares, among {best_of}"
    told = [
        f"Take {best.label}. Of {best_of}, it is the best on validation; on the test set it reaches {metric} "
        f"{expected_text(best)}. It took {cost_text(best)}."
    ]
    for one in others:
        cheaper = "The next cheaper" if one.role == "cheaper" else "The second on validation"
        told.append(f"{cheaper}, {one.label} ({cost_text(one)}): {loss_text(one, settings)}.")
    told += _caveats(best.expected)
    return told


def _fitting(advice: Advice) -> str:
    if advice.fitting == advice.measured:
        return f"the {advice.fitting} measured"
    return f"the {advice.fitting} that fit the budget ({advice.measured} were measured)"


def _caveats(expected: Difference | str) -> list[str]:
    if isinstance(expected, str) or expected.reason:
        return []
    told = []
    if expected.single_seed:
        told.append("One seed alone was trained: another may give another result.")
    if expected.n_groups < FEW_GROUPS:
        told.append(f"With {expected.n_groups} patients the interval is rough.")
    return told
