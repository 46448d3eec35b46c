"""Each model's test on worse and worse images beside the clean ones: pairs of records, and what they lose."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlmbench.metrics.comparison import Contrast, contrast
from vlmbench.reporting.lines import Drawn, Line, is_seeded, sample
from vlmbench.reporting.rows import Row

Floats = NDArray[np.float64]
Condition = tuple[str, int]  # kind and severity


@dataclass(frozen=True, slots=True)
class Damaged:
    """A model and method, clean and corrupted.

    Attributes:
        domain: Whose images were made worse.
        clean: Its own cells, one a seed.
        worse: By condition and seed, the tests on worse images.
    """

    domain: str
    clean: Line
    worse: Mapping[Condition, Mapping[int | None, tuple[Row, ...]]]

    @property
    def rows(self) -> list[Row]:
        """All records."""
        return [*self.clean.rows, *(row for seeds in self.worse.values() for rows in seeds.values() for row in rows)]

    @property
    def cells(self) -> str:
        """Identities of its records."""
        return " ".join(row.identity for row in self.rows)


def damaged(rows: Iterable[Row], lines: Sequence[Line]) -> list[Damaged]:
    """Pair every test on corrupted images with the same model's on the clean ones of the same domain.

    Args:
        rows: All that are done.
        lines: Those of the cells on clean images.
    """
    found: dict[int, dict[Condition, dict[int | None, list[Row]]]] = {}
    homes: dict[tuple[object, ...], list[tuple[int, Row]]] = defaultdict(list)
    for number, line in enumerate(lines):
        for row in line.rows:
            homes[_key(row, row.domain)].append((number, row))
    for row in rows:
        condition = condition_of(row)
        base = row.domain.partition("~")[0]
        if condition is None or (row.trained_on and row.trained_on.partition("@")[0] != base):
            continue
        candidates = homes[_key(row, row.trained_on or base)]
        if row.trained_on:  # one recipe among several of the same name
            config = row.text("hashes", "config")
            candidates = [one for one in candidates if one[1].text("hashes", "config") == config]
        if len(candidates) == 1:
            of_line = found.setdefault(candidates[0][0], defaultdict(lambda: defaultdict(list)))
            of_line[condition][row.seed].append(row)
    return [
        Damaged(
            lines[number].first.domain,
            lines[number],
            {c: {seed: tuple(rows) for seed, rows in seeds.items()} for c, seeds in sorted(conditions.items())},
        )
        for number, conditions in sorted(found.items())
    ]


def condition_of(row: Row) -> Condition | None:
    """Return what was done to the images of a row's test; None where they are clean."""
    kind, severity = row.text("config", "domain", "corruption"), row.number("config", "domain", "severity")
    return None if kind in ("", "none") or severity is None else (kind, int(severity))


def scores(one: Damaged, drawn: Mapping[str, Drawn], conditions: Sequence[Condition]) -> tuple[Floats, Floats]:
    """Return, of every seed that has all of it, clean and corrupted metric.

    The corrupted one is the mean over kinds of the mean over severities, so that no kind counts for more than another.

    Returns:
        Two arrays (K, 1 + R): the point, then the draws. K is 0 where no seed has everything.
    """
    kinds = sorted({kind for kind, _ in conditions})
    clean, worse = [], []
    for row in one.clean.rows:
        parts: dict[str, list[Floats]] = {kind: [] for kind in kinds}
        for condition in conditions:
            tests = [drawn[r.path] for r in one.worse.get(condition, {}).get(row.seed, ()) if r.path in drawn]
            # Only what was tested on the very examples is paired.
            tests = [test for test in tests if row.path in drawn and test.examples == drawn[row.path].examples]
            if tests:
                parts[condition[0]].append(np.mean([_column(test) for test in tests], axis=0))
        if sum(map(len, parts.values())) == len(conditions) > 0:
            clean.append(_column(drawn[row.path]))
            worse.append(np.mean([np.mean(parts[kind], axis=0) for kind in kinds], axis=0))
    empty = np.zeros((0, 1))
    return (np.array(clean) if clean else empty), (np.array(worse) if worse else empty)


def change(one: Damaged, drawn: Mapping[str, Drawn], conditions: Sequence[Condition]) -> Contrast | None:
    """Return corrupted minus clean on the same examples and seeds; None where no seed has both."""
    clean, worse = scores(one, drawn, conditions)
    if not len(clean):
        return None
    lost = worse - clean
    nothing = np.zeros(1), np.zeros((1, lost.shape[1] - 1))
    return contrast(_split(lost), nothing, seeded=(is_seeded(one.clean.first), False), **sample(_known(one, drawn)))


def more_lost(left: Damaged, right: Damaged, drawn: Mapping[str, Drawn]) -> tuple[Contrast, int] | None:
    """Return the change of one side minus that of the other, over the conditions that both were tested under.

    Returns:
        The contrast and the number of conditions; None where there is none, or the sides were tested on other examples.
    """
    common = [condition for condition in left.worse if condition in right.worse]
    sides = [scores(one, drawn, common) for one in (left, right)]
    if not all(len(clean) for clean, _ in sides) or len({_examples(one, drawn) for one in (left, right)}) > 1:
        return None
    lost = [_split(worse - clean) for clean, worse in sides]
    seeded = is_seeded(left.clean.first), is_seeded(right.clean.first)
    both = [known for one in (left, right) for known in _known(one, drawn)]
    return contrast(*lost, seeded=seeded, **sample(both)), len(common)


def _column(one: Drawn) -> Floats:
    return np.concatenate([[one.point], one.draws])


def _split(columns: Floats) -> tuple[Floats, Floats]:
    return columns[:, 0], columns[:, 1:]


def _known(one: Damaged, drawn: Mapping[str, Drawn]) -> list[Drawn]:
    """What was drawn of the examples of its clean cells."""
    known = [drawn[row.path] for row in one.rows if row.path in drawn]
    return [each for each in known if each.examples == _examples(one, drawn)]


def _examples(one: Damaged, drawn: Mapping[str, Drawn]) -> str:
    return next((drawn[row.path].examples for row in one.clean.rows if row.path in drawn), "")


def _key(row: Row, domain: str) -> tuple[object, ...]:
    return row.task, row.primary_metric, row.model, row.finetune, row.scope, row.seed, domain
