"""What was run, on which data, and what a reader must be warned of; all of it from the records."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from vlmbench.reporting.load import Unreadable
from vlmbench.reporting.rows import Row, as_number, dig
from vlmbench.reporting.text import count_text
from vlmbench.reporting.wording import FEW_GROUPS

AUDITED = {
    "groups": "groups in both",
    "images": "images in both",
    "pixels": "images in both (same pixels)",
    "near_duplicates": "near-duplicate images",
    "questions": "questions in both",
    "questions_on_copies": "questions in both on copies of an image",
}


@dataclass(frozen=True, slots=True)
class DataNote:
    """One version of one domain: its splits, what was left out, what overlaps, and what was not looked for."""

    domain: str
    task: str
    modality: str
    splits: tuple[tuple[str, str], ...]
    licence: str
    fingerprint: str
    left_out: tuple[str, ...]
    overlaps: tuple[str, ...]
    unaudited: str


def facts(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Label and text of each line of "what was run"."""

    def listed(values: Sequence[str]) -> str:
        return ", ".join(sorted({value for value in values if value})) or "not recorded"

    models = {f"{row.model} ({row.role or 'role not recorded'})" for row in rows if row.model}
    domains = {f"{row.domain} ({row.modality})" if row.modality else row.domain for row in rows}
    seeds = sorted({row.seed for row in rows if row.seed is not None})
    commits = {
        f"{commit[:12]}{' with uncommitted changes' if row.scalar('environment', 'git', 'dirty') is True else ''}"
        for row in rows
        if (commit := row.text("environment", "git", "commit"))
    }
    versions = {f"{name} {version}" for row in rows for name, version in row.mapping("environment", "versions").items()}
    finished = newest_date(rows)
    return [
        ("Models", listed([*models])),
        ("Domains", listed([*domains])),
        ("Finetune", listed([row.finetune for row in rows])),
        ("Seeds", ", ".join(map(str, seeds)) or "not recorded"),
        ("Hardware", listed([hardware(row) for row in rows])),
        ("Python", listed([row.text("environment", "python") for row in rows])),
        ("Versions", listed([*versions])),
        ("Git commit", listed([*commits])),
        ("Newest record", finished.strftime("%Y-%m-%d %H:%M UTC") if finished else "not recorded"),
    ]


def hardware(row: Row) -> str:
    """Device and precision of a record, in a few words."""
    return " ".join(part for part in (row.text("environment", "device"), row.text("environment", "precision")) if part)


def newest_date(rows: Sequence[Row]) -> datetime | None:
    """When the newest record was finished, in UTC; None where no record says."""
    dates = []
    for row in rows:
        try:
            date = datetime.fromisoformat(row.text("finished"))
        except ValueError:  # absent, or no ISO date: this record does not say when
            continue
        dates.append(date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC))
    return max(dates, default=None)


def data_notes(rows: Sequence[Row]) -> list[DataNote]:
    """One note for each domain, task and data fingerprint; what any of its records reports is in it."""
    found: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row.kind == "cell" and row.mapping("data"):
            found[(row.domain, row.task, row.text("data", "fingerprint"))].append(row)
    return [
        DataNote(
            domain=domain,
            task=task,
            modality=members[0].modality,
            splits=tuple((name, _split_text(members[0], name)) for name in ("train", "val", "test")),
            licence=members[0].text("data", "licence") or "not recorded",
            fingerprint=fingerprint[:12] or "not recorded",
            left_out=tuple(dict.fromkeys(text for row in members for text in _left_out(row))),
            overlaps=tuple(dict.fromkeys(text for row in members for text in _overlaps(row.mapping("data", "audit")))),
            unaudited=_unaudited(members),
        )
        for (domain, task, fingerprint), members in sorted(found.items())
    ]


def _unaudited(rows: Sequence[Row]) -> str:
    """Which overlaps no record has looked for; a page without it would say that there are none."""
    audits = [row.mapping("data", "audit") for row in rows]
    if not all(audits):
        return "overlap not audited"
    return "pixels and near-duplicates not compared" if any("skipped" in audit for audit in audits) else ""


def _split_text(row: Row, split: str) -> str:
    examples = row.number("data", "splits", split, "examples")
    groups = row.number("data", "splits", split, "groups")
    return "none" if examples is None else f"{count_text(examples)} ({count_text(groups)})"


def _left_out(row: Row) -> tuple[str, ...]:
    entries = dig(row.record, "data", "left_out")
    images: Counter[str] = Counter()
    examples: Counter[str] = Counter()
    for entry in entries if isinstance(entries, list) else []:
        reason = str(dig(entry, "reason") or "no reason recorded")
        images[reason] += dig(entry, "image") != ""  # rows left out by their label or by choice name no image
        examples[reason] += int(as_number(dig(entry, "examples")) or 0)
    return tuple(
        f"{_counted(n, 'image')} left out ({_counted(examples[reason], 'example')}): {reason}"
        if n
        else f"{_counted(examples[reason], 'example')} left out: {reason}"
        for reason, n in images.most_common()
    )


def _overlaps(audit: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(
        f"{splits}: {count_text(n)} {words}"
        for splits, found in audit.items()
        for name, words in AUDITED.items()
        if (n := as_number(dig(found, name)))
    )


def warnings(rows: Sequence[Row], older: Sequence[Row], unreadable: Sequence[Unreadable]) -> list[str]:
    """Sentences on what weakens the numbers: overlaps, few groups, undefined resamples, mixed code or data."""
    out = []
    for note in data_notes(rows):
        out += [f"{note.domain} ({note.task}): splits overlap, {text}." for text in note.overlaps]
        out += [f"{note.domain} ({note.task}): {text}." for text in note.left_out]
    fingerprints: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        if row.kind == "cell" and (mark := row.text("data", "fingerprint")):
            fingerprints[(row.domain, row.task)].add(mark)
    for (domain, task), marks in sorted(fingerprints.items()):
        if len(marks) > 1:
            out.append(f"{domain} ({task}): {len(marks)} versions of the data; its cells are not all comparable.")
    done = [row for row in rows if row.done]
    small: dict[str, float] = {}
    for row in done:
        groups = row.number("bootstrap", "n_groups")
        if groups is not None and groups < FEW_GROUPS:
            small[row.domain] = min(groups, small.get(row.domain, groups))
    out += [
        f"{domain}: the interval rests on {count_text(groups)} groups; below {FEW_GROUPS} its width is rough."
        for domain, groups in sorted(small.items())
    ]
    partial: dict[tuple[str, str], float] = {}
    for row in done:
        partial[row.domain, row.task] = max(
            row.number("counts", "columns_left_out") or 0, partial.get((row.domain, row.task), 0)
        )
    out += [
        f"{domain} ({task}): AUROC and average precision leave out {_counted(int(n), 'label')} of which the test split "
        "holds no positive or no negative example."
        for (domain, task), n in sorted(partial.items())
        if n
    ]
    flat = sum(row.primary.interval is not None and row.primary.low == row.primary.high for row in done)
    if flat:
        out.append(
            f"{_counted(flat, 'interval')} of the primary metric without width: the metric is the same in every "
            "resample. The bootstrap cannot tell how far another test set would be from it."
        )
    undefined = [e for row in done for e in row.estimates.values() if e.value is not None and e.undefined]
    if undefined:
        worst = max(undefined, key=lambda e: e.undefined or 0)
        out.append(
            f"{_counted(len(undefined), 'interval')} computed without the resamples on which the metric is undefined "
            f"(at most {count_text(worst.undefined)} of {count_text(worst.n_resamples)})."
        )
    commits = {row.text("environment", "git", "commit") for row in rows} - {""}
    if len(commits) > 1:
        out.append(f"The records come from {len(commits)} git commits.")
    dirty = sum(row.scalar("environment", "git", "dirty") is True for row in rows)
    if dirty:
        out.append(f"{_counted(dirty, 'record')} made with uncommitted changes in the code.")
    if older:
        out.append(
            f"{_counted(len(older), 'record')} replaced by a newer one of the same cell, and kept in cells.csv alone: "
            + ", ".join(row.path for row in older[:5])
            + (" and others." if len(older) > 5 else ".")
        )
    if unreadable:
        out.append(f"{_counted(len(unreadable), 'record.json file')} could not be read; see the list below.")
    return out


def _counted(n: int, noun: str) -> str:
    return f"{count_text(n)} {noun}{'' if n == 1 else 's'}"
