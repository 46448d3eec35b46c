"""The section on baselines: which scores are shown to need the picture, and which are shown to beat a fixed answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from vlmbench.metrics.comparison import Difference
from vlmbench.reporting.section import Section, rendered
from vlmbench.reporting.study import Study
from vlmbench.reporting.without_picture import BASELINES, MAJORITY, RANDOM, Table, tables

OPEN_LINES = 30


def section(study: Study) -> Section | None:
    """The section; None where nothing has predictions."""
    made = tables(study)
    if not made:
        return None
    return Section(
        "baselines",
        "Baselines: what needs no picture",
        rendered(
            "baselines.html.j2",
            tables=made,
            summary=summary(made),
            missing=[name for name in ("blank", "shuffled", RANDOM) if not any(name in t.columns for t in made)],
            said=said,
            confidence=100 * study.settings.confidence,
            majority=MAJORITY,
            open_lines=OPEN_LINES,
        ),
    )


def said(name: str, difference: Difference) -> str:
    """Say what an interval of score minus baseline shows, and no more."""
    same = bool(difference.reason) and difference.estimate == 0  # on every resample
    if difference.reason and not same:
        return f"cannot tell: {difference.reason}"
    if name in (MAJORITY, RANDOM):
        other = "the majority" if name == MAJORITY else name
        if difference.high < 0:
            return f"worse than {other}"
        return f"better than {other}" if difference.low > 0 else f"not shown to be better than {other}"
    if difference.high < 0:
        return "better without the picture"
    return "needs the picture" if difference.low > 0 else "not shown to need the picture"


def summary(made: Sequence[Table]) -> list[str]:
    """Count in a sentence for each baseline what its differences show."""
    sentences = []
    for name in BASELINES:
        counts = Counter(
            said(name, line.baselines[name][1]).partition(":")[0]
            for table in made
            for line in table.lines
            if name in line.baselines
        )
        if counts:
            told = ", ".join(f"{count} {words}" for words, count in counts.most_common())
            sentences.append(f"{name}: of {counts.total()} scores, {told}")
    return sentences
