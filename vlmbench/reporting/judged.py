"""The section on judged answers: scores, paired gaps, and whether the judge can be believed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from vlmbench.config.twins import SEEDLESS
from vlmbench.metrics.agreement import agreement
from vlmbench.metrics.comparison import Difference, assess, holm
from vlmbench.metrics.contrasts import Contrast, contrast
from vlmbench.metrics.draws import Outcomes, draw, freedom
from vlmbench.records.identity import digest
from vlmbench.records.judgements import PROFILES, predictions_digest, read_judgements, read_summary
from vlmbench.records.store import RecordError
from vlmbench.reporting.pairs import compare
from vlmbench.reporting.rows import Row
from vlmbench.reporting.section import Section, rendered
from vlmbench.reporting.study import Study

COLUMNS = ("example_id", "group", "answer_type", "known", "exact", "unparsed", "score", "swapped_score", "repeat_score")
CHECK_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Judged:
    """A cell with its judgements.

    Attributes:
        row: Its record.
        summary: As `judge.json` has it.
        table: The columns of `COLUMNS`.
    """

    row: Row
    summary: Mapping[str, Any]
    table: pd.DataFrame

    @property
    def judge(self) -> tuple[str, str, str]:
        """What makes two judgements comparable: profile, model, and all else that they follow from.

        The names that an endpoint gave of its model are among it: under one address it may have been replaced.
        """
        rest = {key: value for key, value in self.summary["identity"].items() if key != "predictions"}
        named = sorted(self.summary["replies"]["models"])
        return self.summary["profile"], self.summary["judge"]["name"], digest([rest, named])


def section(study: Study) -> Section | None:
    """Make the section; None where no cell has open answers to be judged."""
    open_rows = [row for row in study.rows if row.done and row.task == "vqa" and row.number("counts", "open") != 0]
    if not open_rows:
        return None
    found, left_out = collect(study, open_rows)
    with_one = {one.row.path for one in found}
    body = rendered(
        "judged.html.j2",
        judged=by_judge(found),
        unjudged=[row for row in open_rows if row.path not in with_one],
        left_out=left_out,
        gaps=gaps(study, found),
        checks=checks(found),
        confidence=study.settings.confidence,
        margin=study.settings.margin,
    )
    return Section("judge", "Judge", body)


def collect(study: Study, rows: Sequence[Row]) -> tuple[list[Judged], list[tuple[Row, str]]]:
    """Read the judgements of all rows; those that cannot be used come with the reason."""
    found, left_out = [], []
    for row in rows:
        folder = study.folder(row)
        for profile in PROFILES:
            try:
                summary = read_summary(folder, profile)
                if summary is None:
                    continue
                if summary["identity"]["predictions"] != predictions_digest(folder):
                    left_out.append((row, "judged before the cell was run again; judge it again"))
                    continue
                found.append(Judged(row, summary, read_judgements(folder, profile, COLUMNS)))
            except (RecordError, OSError) as error:
                left_out.append((row, str(error)))
    return found, left_out


def by_judge(found: Sequence[Judged]) -> list[tuple[str, list[Judged]]]:
    """Return the cells of each judge under its name, sorted for reading."""
    ordered = sorted(found, key=lambda one: (one.judge, one.row.domain, one.row.model, one.row.finetune, one.row.path))
    return [(judge[1], list(cells)) for judge, cells in groupby(ordered, key=lambda one: one.judge)]


@dataclass(frozen=True, slots=True)
class Gap:
    """A pair's difference in judge score over the seeds that both sides ran.

    Attributes:
        cells: Of both sides.
        generalist: One of its rows; so the next.
        specialist: Of the pair.
        judge: Profile and model.
        difference: Generalist minus specialist.
        p: Corrected by Holm over all gaps of the same judge.
    """

    cells: tuple[Row, ...]
    generalist: Row
    specialist: Row
    judge: tuple[str, str]
    difference: Difference
    p: float


def gaps(study: Study, found: Sequence[Judged]) -> list[Gap]:
    """Return the differences of pairs that were judged alike on the same examples."""
    by_path: dict[str, list[Judged]] = defaultdict(list)
    for one in found:
        by_path[one.row.path].append(one)
    alike: dict[tuple[Any, ...], list[tuple[Judged, Judged]]] = defaultdict(list)
    for pair in compare([one.row for one in {one.row.path: one for one in found}.values()]):
        left, right = pair.generalist, pair.specialist
        for one in by_path[left.path]:
            for other in by_path[right.path]:
                if one.judge == other.judge:
                    key = (left.model, right.model, left.finetune, left.scope, left.domain, left.trained_on, one.judge)
                    alike[key].append((one, other))
    contrasts = contrasted(study, alike)
    settings = study.settings
    tested = {
        key: assess(one, margin=settings.margin, confidence=settings.confidence, power=settings.power)
        for key, one in contrasts.items()
    }
    out = []
    for judge in sorted({key[-1] for key in tested}):
        keys = [key for key in tested if key[-1] == judge]
        for key, p in zip(keys, holm([tested[key].p for key in keys]), strict=True):
            cells = tuple(one.row for pair in alike[key] for one in pair)
            out.append(Gap(cells, cells[0], cells[1], judge[:2], tested[key], float(p)))
    return out


def contrasted(
    study: Study, alike: Mapping[tuple[Any, ...], Sequence[tuple[Judged, Judged]]]
) -> dict[tuple[Any, ...], Contrast]:
    """Return the contrast of each pair; all pairs of a test set are drawn together, on the same resamples.

    An answer counts in a pair where the judge's replies to both sides could be read.
    """
    sets: dict[str, list[tuple[tuple[Any, ...], tuple[Outcomes, Outcomes]]]] = defaultdict(list)
    for key, pairs in alike.items():
        for pair in pairs:
            both = aligned(*pair)
            if both is not None:
                sets[digest([both[0].example_ids.tolist(), both[0].groups.tolist()])].append((key, both))
    drawn: dict[tuple[Any, ...], dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    n_groups: dict[str, int] = {}
    degrees: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for name, entries in sets.items():
        cells = [side for _, both in entries for side in both]
        points, draws = draw(cells, n_resamples=study.settings.resamples, seed=int(name[:8], 16))
        n_groups[name] = len(np.unique(cells[0].groups))
        for place, (key, both) in enumerate(entries):
            degrees[key].append(freedom(both[0]))
            own = slice(2 * place, 2 * place + 2)
            drawn[key][name].append((points[own], draws[own]))
    out = {}
    for key, parts in drawn.items():
        # Draws of other examples do not average: of seeds that were tested on several sets, the most on one are taken.
        name, same = max(parts.items(), key=lambda part: len(part[1]))
        sides = tuple(
            (np.array([points[side] for points, _ in same]), np.stack([draws[side] for _, draws in same]))
            for side in (0, 1)
        )
        seeded = (key[2] not in SEEDLESS,) * 2
        out[key] = contrast(
            *sides, n_groups=n_groups[name], seeded=seeded, test_set=name, freedom=max(1.0, min(degrees[key]))
        )
    return out


def aligned(left: Judged, right: Judged) -> tuple[Outcomes, Outcomes] | None:
    """Return the open scores of two cells on the same examples, None where these are not the same."""
    # Written in the order of the ids.
    tables = [one.table[(one.table["answer_type"] == "open").to_numpy()] for one in (left, right)]
    ids, groups = ([table[name].to_numpy(dtype=str) for table in tables] for name in ("example_id", "group"))
    if not (np.array_equal(ids[0], ids[1]) and np.array_equal(groups[0], groups[1])):
        return None
    scores = [table["score"].to_numpy(dtype=np.float64) for table in tables]
    lost = np.isnan(scores[0]) | np.isnan(scores[1])
    values = [np.where(lost, np.nan, score) for score in scores]
    first, second = (Outcomes("judge_score", ids[0], groups[0], values=column) for column in values)
    return first, second


@dataclass(frozen=True, slots=True)
class Check:
    """How far one judge can be believed on one test set, over all cells that it judged there.

    Attributes:
        cells: These cells.
        judge: Profile and model.
        models: What the endpoint called the models that replied.
        domain: The test set.
        found: Name of a check to what `metrics.agreement.agreement` gives; patients are resampled, whichever cells
            answered about them.
    """

    cells: tuple[Row, ...]
    judge: tuple[str, str]
    models: tuple[str, ...]
    domain: str
    found: Mapping[str, Mapping[str, Any]]


def checks(found: Iterable[Judged]) -> list[Check]:
    """Return the checks of each judge on each test set."""
    sets: dict[tuple[Any, ...], list[Judged]] = defaultdict(list)
    for one in found:
        sets[(one.judge, one.row.domain)].append(one)
    out = []
    for (judge, domain), cells in sorted(sets.items()):
        table = pd.concat([one.table for one in cells], ignore_index=True)
        closed, put = (table["answer_type"] == "closed").to_numpy(), ~table["exact"].to_numpy(dtype=bool)
        of = {
            "the same answers in the other order": ("score", "swapped_score", put),
            "the same question once more": ("score", "repeat_score", put),
            "closed questions, whose truth is known": ("known", "score", closed),
            "exact match of open answers": ("known", "score", ~closed & put),
        }
        compared = {
            name: agreement(
                table[left][rows], table[right][rows], table["group"][rows].to_numpy(), n_resamples=CHECK_RESAMPLES
            )
            for name, (left, right, rows) in of.items()
        }
        models = tuple(sorted({name for one in cells for name in one.summary["replies"]["models"]}))
        out.append(Check(tuple(one.row for one in cells), judge[:2], models, domain, compared))
    return out
