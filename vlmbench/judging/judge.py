"""A judge: asked about many answers, several at a time, with every reply kept, so that none is paid for twice."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from vlmbench.hosted.answers import Answer, AnswerCache
from vlmbench.hosted.endpoint import Endpoint, HostedError, brief
from vlmbench.hosted.together import together
from vlmbench.judging.rubric import Item, Rubric
from vlmbench.progress import Countdown

ENOUGH_TO_TELL = 20  # replies, of which more than half that cannot be read mean a model that cannot judge


class Model(Protocol):
    """What answers a judge's questions.

    Attributes:
        concurrency: Most questions at a time.
    """

    concurrency: int

    def body(self, messages: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """Return all that determines the reply but its length: what it is kept under."""
        ...

    def ask(self, body: Mapping[str, Any], budget: int, stop: threading.Event) -> Answer:
        """Return the reply of at most `budget` tokens."""
        ...


@dataclass
class HostedJudge:
    """A model behind an OpenAI-compatible endpoint, at temperature 0.

    Attributes:
        endpoint: Where it is asked.
        name: The name that it goes by there.
        settings: Further fields of each request; null takes one of ours out.
        token_field: What the request calls the most tokens.
        concurrency: Most requests at a time.
    """

    endpoint: Endpoint
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    token_field: str = "max_completion_tokens"  # noqa: S105 - a field's name
    concurrency: int = 4

    def body(self, messages: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """Return the request's JSON and the endpoint's address."""
        rest = {key: value for key, value in ({"temperature": 0} | dict(self.settings)).items() if value is not None}
        return {"url": self.endpoint.base_url.rstrip("/"), "model": self.name, "messages": list(messages), **rest}

    def ask(self, body: Mapping[str, Any], budget: int, stop: threading.Event) -> Answer:
        """Return the reply; see `Endpoint.ask` for what is tried again and what is raised."""
        request = {key: value for key, value in body.items() if key not in ("url", "again")}
        return self.endpoint.ask({**request, self.token_field: budget}, budget, stop)


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a judge says of one answer.

    Attributes:
        score: From 0 to 1; None where the reply cannot be read.
        reply: Its text.
        answer: The reply with its tokens and who gave it.
    """

    score: float | None
    reply: str
    answer: Answer


@dataclass
class Judge:
    """A model with a rubric.

    Attributes:
        model: What is asked.
        rubric: What about.
        cache: Where its replies are kept.
        budget: Most tokens of a reply.
    """

    model: Model
    rubric: Rubric
    cache: AnswerCache
    budget: int
    _paid: list[Answer] = field(init=False, default_factory=list)
    _known: dict[str, Answer] = field(init=False, default_factory=dict)
    _unread: int = field(init=False, default=0)
    _progress: Countdown | None = field(init=False, default=None)
    _done: int = field(init=False, default=0)
    _total: int = field(init=False, default=0)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def key(self, item: Item, *, again: bool) -> str:
        """Return what a reply is kept under; asked `again`, a question is another one to the cache."""
        body = self.model.body(self.rubric.messages(item)) | ({"again": True} if again else {})
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()

    def missing(self, asked: Iterable[tuple[Item, bool]]) -> tuple[int, int, int]:
        """Return the number of different questions, of those not asked before, and of the characters in these."""
        keys = {self.key(item, again=again): item for item, again in asked}
        new = [item for key, item in keys.items() if self.cache.find(key, self.budget) is None]
        characters = sum(len(turn["content"]) for item in new for turn in self.rubric.messages(item))
        self._done, self._total = 0, len(new)
        return len(keys), len(new), characters

    def rule(self, asked: Sequence[tuple[Item, bool]]) -> list[Ruling]:
        """Return the ruling on each item.

        Args:
            asked: Each with whether its reply is asked for anew, apart from what was replied before.

        Raises:
            HostedError: The endpoint fails for good, or most replies cannot be read. What is in flight is waited for
                and kept, for it is paid for.
        """
        keys = [self.key(item, again=again) for item, again in asked]
        new = {key: pair for key, pair in zip(keys, asked, strict=True) if key not in self._known}
        calls = [partial(self._one, key, item, again) for key, (item, again) in new.items()]
        _, done = together(calls, self.model.concurrency)
        self._raise_first(done)
        answers = [self._known[key] for key in keys]
        return [Ruling(self.rubric.read(answer.text), answer.text, answer) for answer in answers]

    def close(self) -> dict[str, int]:
        """End the progress, and return the replies paid for since the start and their tokens."""
        if self._progress is not None:
            self._progress.close()
        return counted(self._paid)

    def _one(self, key: str, item: Item, again: bool, stop: threading.Event) -> None:
        if stop.is_set():
            return
        body = self.model.body(self.rubric.messages(item)) | ({"again": True} if again else {})
        answer, kept = self.cache.get(key, self.budget, lambda: self.model.ask(body, self.budget, stop))
        with self._lock:
            self._known[key] = answer
            self._unread += self.rubric.read(answer.text) is None
            if not kept:
                self._paid.append(answer)
                self._done += 1
                self._progress = self._progress or Countdown("Judging, answers", self._total, self._done - 1)
                self._progress.update(self._done)
            self._check(answer)

    def _check(self, last: Answer) -> None:
        known = len(self._known)
        if known >= ENOUGH_TO_TELL and self._unread > known / 2:
            advice = "raise max_tokens or model.extra_tokens" if last.finish == "length" else "take another model"
            raise HostedError(
                f"{self._unread} of {known} replies of the judge are not of the form that it was asked for, the last "
                f"of which was {brief(last.text)[:120]!r}. To go on, {advice}."
            )

    def _raise_first(self, done: set[Future[None]]) -> None:
        kept = f"Every reply so far is kept in {self.cache.folder}: the same command goes on there."
        for fault in filter(None, (future.exception() for future in done)):
            if isinstance(fault, OSError):
                raise HostedError(f"model.cache={self.cache.folder} cannot be written: {fault}") from fault
            if not isinstance(fault, HostedError):
                raise fault
            raise HostedError(f"{fault} {kept}") from None


def counted(answers: Sequence[Answer]) -> dict[str, int]:
    """Return the number of replies and of their tokens."""
    asked, replied = (sum(getattr(answer, name) for answer in answers) for name in ("input_tokens", "output_tokens"))
    return {"answers": len(answers), "input_tokens": asked, "output_tokens": replied}


def who(answers: Iterable[Answer]) -> dict[str, dict[str, int]]:
    """Return the names and fingerprints that models gave of themselves, each with its number of replies."""
    answers = list(answers)
    named = {
        "models": Counter(answer.model for answer in answers),
        "fingerprints": Counter(answer.fingerprint for answer in answers if answer.fingerprint),
    }
    return {kind: dict(sorted(counts.items())) for kind, counts in named.items()}
