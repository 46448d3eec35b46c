"""The questions of FairVLMed-VQA: from `data_summary.csv` of Harvard-FairVLMed to three tables and an account."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmbench.asking.ask import Asked, Note
from vlmbench.asking.recipe import Recipe, stated_answers
from vlmbench.domains.base import DomainError
from vlmbench.domains.published.fairvlmed_vqa import COLUMNS, SPLITS, table_name
from vlmbench.domains.published.layout import table
from vlmbench.domains.splits import ALIASES
from vlmbench.domains.tables import MISSING
from vlmbench.errors import UserError
from vlmbench.weights.hashes import write_atomically

TABLE = "data_summary.csv"
ACCOUNT = "questions.json"
#: The account's entries that decide what the questions are.
IDENTITY = (
    "recipe",
    "recipe_sha256",
    "model",
    "endpoint",
    "settings",
    "seed",
    "attempts",
    "max_tokens",
    "column",
    "limit",
)
_FOLDERS = {"train": "Training", "validation": "Validation", "test": "Test"}


def read_notes(root: Path, column: str, seed: int = 0, limit: int = 0) -> tuple[list[Note], int]:
    """Return what is known of each image, by split and name, and how many images have no text.

    Args:
        root: Folder of the official layout.
        column: Of `data_summary.csv`: `gpt4_summary`, or `note` for the whole note.
        seed: Decides the answers that closed questions must have, and which images a limit takes.
        limit: Most images of a split; 0 takes all. What is asked of an image does not depend on it.

    Raises:
        DomainError: The table or an image is missing, or a split has an unknown name.
    """
    frame = table(root, TABLE, ["filename", "use", column])
    uses = frame["use"].str.lower()
    if strange := sorted(set(uses) - set(ALIASES)):
        raise DomainError(f"{root / TABLE}: column 'use' has {strange[0]!r}, which names no split")
    if frame["filename"].duplicated().any():
        twice = frame["filename"][frame["filename"].duplicated()].iloc[0]
        raise DomainError(f"{root / TABLE}: the file {twice} comes twice in the column 'filename'")
    empty = frame[column].str.lower().isin(MISSING)
    notes = []
    for split, ours in SPLITS.items():
        rows = frame[(uses.map(ALIASES) == ours) & ~empty]
        texts = dict(zip(rows["filename"], rows[column], strict=True))
        stated = list(stated_answers(list(texts), seed).items())
        for name, answer in sorted(stated[: limit or None]):
            notes.append(Note(split, f"{_FOLDERS[split]}/{name}", texts[name], answer))
    gone = [note.image for note in notes if not (root / note.image).is_file()]
    if gone:
        raise DomainError(
            f"{root}: {len(gone):,} of {len(notes):,} images that {TABLE} names are not there, such as {gone[0]}. "
            "Nothing was asked. Unpack the whole dataset, or give the folder that holds it as domain.root"
        )
    if not notes:
        raise DomainError(f"{root / TABLE}: no image has a text in the column {column!r}; give another as column=...")
    return notes, int(empty.sum())


def check_target(folder: Path, identity: Mapping[str, Any], *, overwrite: bool) -> None:
    """Check that tables which are there may be replaced: as they were written, by those of the same questions.

    With `overwrite` any may.

    Raises:
        UserError: They may not, or the folder cannot be written.
    """
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        fault = "cannot be written" if nearest.is_dir() else "is no folder"
        raise UserError(f"{nearest} {fault}. Nothing was asked; give another folder as output=...")
    there = [name for name in map(table_name, SPLITS) if (folder / name).exists()]
    if not there or overwrite:
        return
    try:
        told = json.loads((folder / ACCOUNT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        told = {}
    if not isinstance(told, dict) or not told:
        raise UserError(
            f"{folder} holds {', '.join(there)} without a {ACCOUNT}: questions of your own, it seems. Give another "
            "folder as output=..., or overwrite=true to replace them."
        )
    if other := [key for key in IDENTITY if told.get(key) != identity[key]]:
        raise UserError(
            f"{folder} holds other questions: {', '.join(other)} differ, by its {ACCOUNT}. Give another folder as "
            "output=..., or overwrite=true to replace them."
        )
    written = told["sha256"] if isinstance(told.get("sha256"), dict) else {}
    if edited := [name for name in there if written.get(name) != _sha256((folder / name).read_bytes())]:
        raise UserError(
            f"{folder}: {', '.join(edited)} changed after it was written, by the hashes in {ACCOUNT}. Give another "
            "folder as output=..., or overwrite=true to replace it."
        )


def tables(notes: Sequence[Note], asked: Sequence[Asked], recipe: Recipe) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the text of each table by its name, and what was counted.

    Questions about what no image shows are left out here, the other question of the image is not.

    Raises:
        DomainError: A split would have no question.
    """
    lines: dict[str, list[tuple[str, ...]]] = {split: [] for split in SPLITS}
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    unseen: Counter[str] = Counter()
    for note, result in zip(notes, asked, strict=True):
        counted = counts[note.split]
        counted["images"] += 1
        if result.questions is None:
            counted["images_left_out"] += 1
            continue
        for kind, question in zip(("OPEN", "CLOSED"), result.questions, strict=True):
            if topic := recipe.unseen_topic(question):
                unseen[topic] += 1
                counted["questions_left_out"] += 1
                continue
            counted[kind.lower()] += 1
            if kind == "CLOSED":
                counted[question.answer] += 1
            lines[note.split].append((note.image, question.question, question.answer, kind))
    texts = {}
    for split, rows in lines.items():
        if not rows:
            raise DomainError(f"no question is left for the split {split!r}; nothing was written, every answer is kept")
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([COLUMNS, *rows])
        texts[table_name(split)] = out.getvalue()
    faults = Counter(fault for result in asked for fault in result.faults)
    gone = Counter(result.faults[-1] for result in asked if result.questions is None)
    return texts, {
        "splits": {split: dict(sorted(counted.items())) for split, counted in counts.items()},
        "unusable_replies": dict(sorted(faults.items())),
        "images_left_out": dict(sorted(gone.items())),
        "questions_left_out": dict(sorted(unseen.items())),
    }


def save(folder: Path, texts: Mapping[str, str], account: Mapping[str, Any]) -> None:
    """Write the tables, and last the account with their hashes: where it is, all are there.

    Raises:
        UserError: The folder cannot be written.
    """
    hashes = {name: _sha256(text.encode()) for name, text in texts.items()}
    try:
        (folder / ACCOUNT).unlink(missing_ok=True)
        for name, text in texts.items():
            write_atomically(folder / name, text)
        write_atomically(folder / ACCOUNT, json.dumps({**account, "sha256": hashes}, indent=2) + "\n")
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written: {error}. Every answer is kept; give another output=..."
        ) from error


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
