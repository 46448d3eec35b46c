"""Asking a hosted model for the questions of many images, several at a time, with every answer kept."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from vlmbench.asking.recipe import Question, Recipe, UnusableReplyError, row_seed
from vlmbench.hosted.answers import Answer, AnswerCache
from vlmbench.hosted.endpoint import Endpoint, HostedError, brief
from vlmbench.hosted.together import together
from vlmbench.progress import Countdown

ENOUGH_TO_JUDGE = 20  # images, of which more than half without a usable reply mean a model that cannot do it


@dataclass(frozen=True, slots=True)
class Note:
    """What is known of an image.

    Attributes:
        split: `train`, `validation` or `test`.
        image: Its path, as the tables will have it.
        summary: Of its clinical note.
        stated: The answer that its closed question must have, `yes` or `no`.
    """

    split: str
    image: str
    summary: str
    stated: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of one image.

    Attributes:
        questions: The open and the closed question; None where no reply was usable.
        faults: Why replies were not usable, one an attempt.
    """

    questions: tuple[Question, Question] | None
    faults: tuple[str, ...] = ()


@dataclass
class Writer:
    """A model behind an endpoint that writes questions.

    Attributes:
        endpoint: Where it is asked.
        answers: Where its answers are kept.
        name: The name that it goes by at the endpoint.
        recipe: What it is asked.
        seed: Of the whole set.
        attempts: Most requests for one image, each under its own seed.
        budget: Most tokens of a reply.
        settings: Further fields of each request; null takes one of ours out.
        token_field: What the request calls the most tokens.
        concurrency: Most requests at a time.
    """

    endpoint: Endpoint
    answers: AnswerCache
    name: str
    recipe: Recipe
    seed: int = 0
    attempts: int = 3
    budget: int = 400
    settings: Mapping[str, Any] = field(default_factory=dict)
    token_field: str = "max_completion_tokens"  # noqa: S105 - a field's name
    concurrency: int = 4
    _used: list[tuple[Answer, bool]] = field(init=False, default_factory=list)
    _done: int = field(init=False, default=0)
    _useless: Counter[str] = field(init=False, default_factory=Counter)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)
    _progress: Countdown | None = field(init=False, default=None)

    def write(self, notes: Sequence[Note]) -> list[Asked]:
        """Return what came of each image, in order.

        Raises:
            HostedError: The endpoint fails for good, most replies are of no use, or the answers cannot be kept. What
                is in flight is waited for and kept, for it is paid for.
        """
        self._done, self._useless, self._progress = 0, Counter(), None
        futures, done = together([partial(self._one, note, len(notes)) for note in notes], self.concurrency)
        self._raise_first(done)
        if self._progress is not None:
            self._progress.close()
        return [future.result() for future in futures]

    def usage(self) -> dict[str, Any]:
        """Return the requests and tokens, newly paid and from the cache, what was retried, and who answered."""
        used = self._used
        return {
            "paid": _counted([answer for answer, cached in used if not cached]),
            "cached": _counted([answer for answer, cached in used if cached]),
            "retried": dict(self.endpoint.retried),
            "models": dict(Counter(answer.model for answer, _ in used)),
            "fingerprints": dict(Counter(answer.fingerprint for answer, _ in used if answer.fingerprint)),
        }

    def body(self, note: Note, attempt: int) -> dict[str, Any]:
        """Return the JSON of one request, but for the most tokens."""
        ours = {"temperature": 0, "seed": row_seed(self.seed, note.image, attempt)}
        rest = {key: value for key, value in (ours | dict(self.settings)).items() if value is not None}
        return {"model": self.name, "messages": self.recipe.messages(note.summary, note.stated), **rest}

    def _one(self, note: Note, total: int, stop: threading.Event) -> Asked:
        faults: list[str] = []
        questions, new, last = None, False, ""
        for attempt in range(self.attempts):
            if stop.is_set():
                break
            answer, cached = self._answer(self.body(note, attempt), stop)
            new, last = new or not cached, answer.text
            try:
                questions = self.recipe.read(answer.text, note.stated)
                break
            except UnusableReplyError as fault:
                faults.append({"length": "out of tokens", "content_filter": "declined"}.get(answer.finish, str(fault)))
        asked = Asked(questions, tuple(faults))
        if stop.is_set():  # another image ended the run
            return asked
        with self._lock:
            self._done += 1
            self._show(total, new)
            if questions is None:
                self._useless[faults[-1]] += 1
                self._judge(last)
        return asked

    def _answer(self, body: dict[str, Any], stop: threading.Event) -> tuple[Answer, bool]:
        named = {"url": self.endpoint.base_url.rstrip("/"), **body}
        key = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()
        whole = {**body, self.token_field: self.budget}
        found = self.answers.get(key, self.budget, lambda: self.endpoint.ask(whole, self.budget, stop))
        self._used.append(found)
        return found

    def _show(self, total: int, new: bool) -> None:
        """Show the progress, timed from the first image that had to be asked for: what is kept takes no time."""
        if self._progress is None and new:
            self._progress = Countdown("Writing questions, images", total, self._done - 1)
        if self._progress is not None:
            self._progress.update(self._done)

    def _judge(self, last: str) -> None:
        useless = self._useless.total()
        if self._done >= ENOUGH_TO_JUDGE and useless > self._done / 2:
            ((most, times),) = self._useless.most_common(1)
            advice = "raise max_tokens" if most == "out of tokens" else "take another model, or raise attempts"
            raise HostedError(
                f"{self.name}: {useless} of {self._done} images got no usable reply ({most}: {times}), the "
                f"last of which was {brief(last)[:120]!r}. To go on, {advice}. {self._kept()}"
            )

    def _raise_first(self, done: set[Future[Asked]]) -> None:
        for fault in filter(None, (future.exception() for future in done)):
            if isinstance(fault, OSError):
                raise HostedError(f"model.cache={self.answers.folder} cannot be written: {fault}") from fault
            if not isinstance(fault, HostedError):
                raise fault
            told = str(fault)
            raise HostedError(told if self._kept() in told else f"{told} {self._kept()}") from None

    def _kept(self) -> str:
        return f"Every answer so far is kept in {self.answers.folder}: the same command goes on there."


def _counted(answers: Sequence[Answer]) -> dict[str, int]:
    asked, answered = (sum(getattr(answer, name) for answer in answers) for name in ("input_tokens", "output_tokens"))
    return {"answers": len(answers), "input_tokens": asked, "output_tokens": answered}
