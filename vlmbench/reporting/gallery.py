"""Right and wrong answers with their images; only where the reader asks for it: images leave the machine by it."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vlmbench.errors import UserError
from vlmbench.metrics.frame import diagnosis_arrays, vqa_values
from vlmbench.reporting.longtable import identities, seed_text, setting
from vlmbench.reporting.ordering import TASKS, order, rank
from vlmbench.reporting.pairs import compare
from vlmbench.reporting.rows import Row, dig
from vlmbench.reporting.section import Section, rendered
from vlmbench.reporting.study import LoadImage, Study

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

# Of each kind of a domain, and of the page: an image takes about 5 kB.
EACH, MOST = 3, 120
PIXELS = 160


@dataclass(frozen=True, slots=True)
class Example:
    """One example: its image as a data URI, what is asked and true, and what each cell says."""

    image: str
    alt: str
    question: str
    truth: str
    said: tuple[tuple[str, str, bool], ...]


@dataclass(frozen=True, slots=True)
class Wall:
    """The examples of one domain by kind, or the reason why there are none."""

    domain: str
    task: str
    cells: str
    names: str
    licence: str
    kinds: tuple[tuple[str, tuple[Example, ...]], ...] = ()
    reason: str = ""


def section(study: Study) -> Section | None:
    """The section; None where the reader did not ask for it."""
    if not study.settings.gallery or study.load_image is None:
        return None
    left = MOST
    walls = []
    for task, domain, rows in _chosen(study.rows):
        wall = _wall(study, task, domain, rows, study.load_image, left)
        left -= sum(len(examples) for _, examples in wall.kinds)
        walls.append(wall)
    body = rendered("gallery.html.j2", walls=walls, each=EACH, most=MOST)
    return Section("gallery", "Gallery", body) if walls else None


def _chosen(rows: Sequence[Row]) -> Iterator[tuple[str, str, list[Row]]]:
    """Of each domain one generalist beside its specialist, tuned by the heaviest method, or one cell alone."""
    pairs = {}
    for pair in sorted(compare(rows), key=lambda one: (*order(one.generalist)[:-1], -(one.generalist.seed or 0))):
        pairs[pair.generalist.task, pair.generalist.domain] = [pair.generalist, pair.specialist]
    alone = {(row.task, row.domain): [row] for row in rows if row.kind == "cell" and row.done}
    for (task, domain), found in sorted((alone | pairs).items(), key=lambda item: (rank(item[0][0], TASKS), item[0])):
        if task in ("diagnosis", "vqa"):
            yield task, domain, found


def _wall(study: Study, task: str, domain: str, rows: list[Row], load: LoadImage, left: int) -> Wall:
    names = " beside ".join(f"{row.model}, {setting(row)}, seed {seed_text(row)}" for row in rows)
    licence = rows[0].text("data", "licence") or "not recorded"
    told = (domain, task, " ".join(identities(*rows)), names, licence)
    frames = [frame for row in rows if (frame := study.predictions(row)) is not None]
    if len(frames) < len(rows):
        return Wall(*told, reason="its predictions cannot be read")
    if any(list(frame["example_id"]) != list(frames[0]["example_id"]) for frame in frames):
        return Wall(*told, reason="the two cells were tested on other examples")
    right = np.array([_right(frame, task) for frame in frames])
    drawn = random.Random(f"{domain} {rows[0].text('data', 'fingerprint')}")
    kinds = []
    try:
        for title, mask in _kinds(right):
            places = np.flatnonzero(mask).tolist()
            picked = sorted(drawn.sample(places, min(EACH, len(places), max(left, 0))))
            left -= len(picked)
            made = tuple(_example(rows, frames, task, place, right, load) for place in picked)
            if made:
                kinds.append((f"{title} ({len(places)} of {right.shape[1]})", made))
    except UserError as error:
        return Wall(*told, reason=str(error))
    return Wall(*told, kinds=tuple(kinds), reason="" if kinds else f"{MOST} images are shown above")


def _kinds(right: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Masks of the examples of each kind; (cells, examples) in."""
    if len(right) == 1:
        return [("Right", right[0]), ("Wrong", ~right[0])]
    left, other = right
    return [
        ("Only the generalist is right", left & ~other),
        ("Only the specialist is right", ~left & other),
        ("Both are wrong", ~left & ~other),
        ("Both are right", left & other),
    ]


def _right(frame: pd.DataFrame, task: str) -> np.ndarray:
    """Whether each example is answered right: the label of the highest score, all labels at 0.5, or the accuracy."""
    if task == "vqa":
        return np.asarray(vqa_values(frame)["accuracy"]) >= 0.5
    several = "target" not in frame
    scores, targets = diagnosis_arrays(frame, several)
    if several:
        return ((scores >= 0.5) == (targets >= 0.5)).all(axis=1)
    return scores.argmax(axis=1) == targets


def _example(
    rows: Sequence[Row], frames: Sequence[pd.DataFrame], task: str, place: int, right: np.ndarray, load: LoadImage
) -> Example:
    first = frames[0].iloc[place]
    names = dig(rows[0].record, "data", "labels")
    labels = [str(label) for label in names] if isinstance(names, list) else []
    said = [(row.model, _said(frame, task, place, labels)) for row, frame in zip(rows, frames, strict=True)]
    truth = str(first["answer"]) if task == "vqa" else _truth(frames[0], place, labels)
    question = str(first["question"]) if task == "vqa" else ""
    words = "; ".join(f"{model} says {told}" for model, told in said)
    return Example(
        image=_thumbnail(load(rows[0], str(first["image"]))),
        alt=f"Test image of {rows[0].domain}. {question} Truth: {truth}; {words}".replace("  ", " "),
        question=question,
        truth=truth,
        said=tuple((model, told, bool(ok)) for (model, told), ok in zip(said, right[:, place], strict=True)),
    )


def _said(frame: pd.DataFrame, task: str, place: int, labels: Sequence[str]) -> str:
    if task == "vqa":
        told = str(frame["prediction"].iloc[place])
        return told if len(told) <= 120 else f"{told[:119]}…"
    several = "target" not in frame
    scores = diagnosis_arrays(frame.iloc[[place]], several)[0][0]
    if several:
        return _named(np.flatnonzero(scores >= 0.5), labels)
    return f"{_named([int(scores.argmax())], labels)} ({scores.max():.2f})"


def _truth(frame: pd.DataFrame, place: int, labels: Sequence[str]) -> str:
    several = "target" not in frame
    target = diagnosis_arrays(frame.iloc[[place]], several)[1][0]
    return _named(np.flatnonzero(target >= 0.5) if several else [int(target)], labels)


def _named(places: Iterable[int], labels: Sequence[str]) -> str:
    return ", ".join(labels[i] if i < len(labels) else f"class {i}" for i in places) or "no finding"


def _thumbnail(image: Image) -> str:
    small = image.convert("RGB")
    small.thumbnail((PIXELS, PIXELS))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
