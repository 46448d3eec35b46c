"""A hosted model as a generative backbone: images become data addresses, batches become concurrent requests."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import sys
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from PIL import Image
from torch import nn

from vlmbench.backbones.base import Turn
from vlmbench.hosted.answers import Answer, AnswerCache
from vlmbench.hosted.endpoint import Endpoint, HostedError

ENOUGH_TO_JUDGE = 8  # answers, of which more than half without a word mean a wrong budget


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image as an endpoint takes it.

    Attributes:
        url: Data address of a PNG file, which keeps every pixel.
        digest: SHA-256 of the pixels, which versions of the PNG encoder write as other bytes.
    """

    url: str
    digest: str

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return len(self.url)


@dataclass(eq=False)
class HostedVlm:
    """A model that answers in text from behind an endpoint; nothing of it can be trained, or asked for likelihoods.

    Attributes:
        endpoint: Where it is asked.
        answers: Where its answers are kept.
        name: The name that it goes by at the endpoint.
        instructions: System message; empty sends none.
        settings: Further fields of each request.
        token_field: What the request calls the most tokens of an answer.
        extra_tokens: Tokens on top of those of the answer, for reasoning.
        max_side: Longest side of an image that is sent as it is.
        concurrency: Most requests at a time.
        model: Has no weights: what is counted and frozen elsewhere is nothing here.
    """

    endpoint: Endpoint
    answers: AnswerCache
    name: str
    instructions: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    token_field: str = "max_completion_tokens"  # noqa: S105 - a field's name
    extra_tokens: int = 0
    max_side: int = 1024
    concurrency: int = 4
    model: nn.Module = field(init=False, default_factory=nn.Module)
    part_prefixes: Mapping[str, tuple[str, ...]] = field(init=False, default_factory=dict)
    _used: list[tuple[Answer, bool]] = field(init=False, default_factory=list)

    @property
    def place(self) -> str:
        """Where it runs, for the record."""
        return f"endpoint {urlsplit(self.endpoint.base_url).netloc}"

    def preprocess(self, image: Image.Image) -> EncodedImage:
        """Return an RGB image as PNG, scaled down to `max_side` where it is larger."""
        image = image.copy()
        image.thumbnail((self.max_side, self.max_side), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        image.save(file, "PNG")
        pixels = hashlib.sha256(f"{image.mode} {image.size}".encode() + image.tobytes())
        return EncodedImage(f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}", pixels.hexdigest())

    def collate(self, turns: Sequence[Turn], *, supervise: bool) -> list[tuple[str, dict[str, Any]]]:
        """Return one request a turn, but for the most tokens of its answer: its key in the cache, and its JSON.

        The key is a SHA-256 of the address, the model, the messages with the pixels, and the further fields.

        Raises:
            ValueError: A supervised batch is asked for.
        """
        if supervise:
            raise ValueError("a hosted model is not trained and has no supervised batches")
        requests = []
        for turn in turns:
            named = {"url": self.endpoint.base_url.rstrip("/"), **self._body(turn.prompt, turn.pixels.digest)}
            key = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()
            requests.append((key, self._body(turn.prompt, turn.pixels.url)))
        return requests

    def generate(self, batch: Sequence[tuple[str, dict[str, Any]]], *, max_new_tokens: int) -> list[str]:
        """Return the answers, each from the cache or asked for, `concurrency` at a time.

        Raises:
            HostedError: The endpoint fails for good; what is in flight is waited for and kept, for it is paid for.
        """
        budget, stop = max_new_tokens + self.extra_tokens, threading.Event()
        pool = ThreadPoolExecutor(self.concurrency)
        asked = [pool.submit(self._answer, key, body, budget, stop) for key, body in batch]
        try:
            done, _ = wait(asked, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
        for fault in filter(None, (future.exception() for future in done)):
            if isinstance(fault, OSError):
                raise HostedError(f"model.cache={self.answers.folder} cannot be written: {fault}") from fault
            if not isinstance(fault, HostedError):
                raise fault
            raise HostedError(f"{fault} {self._kept()}") from None
        answers = [future.result() for future in asked]
        self._check_budget(sum(cut_off(answer) for answer in answers), budget)
        return [answer.text for answer in answers]

    def usage(self) -> dict[str, Any]:
        """Return what was asked so far.

        Returns:
            `paid` and `cached`: number of `answers` and their `input_tokens` and `output_tokens`; `no_text`: answers
            without a word, by the reason for it; `retried`: faults that passed; `models` and `fingerprints` that the
            endpoint named, each with its number of answers.
        """
        answers = [answer for answer, _ in self._used]
        return {
            "paid": counted([answer for answer, cached in self._used if not cached]),
            "cached": counted([answer for answer, cached in self._used if cached]),
            "no_text": dict(Counter(answer.finish for answer in answers if not answer.text)),
            "retried": dict(self.endpoint.retried),
            "models": dict(Counter(answer.model for answer in answers)),
            "fingerprints": dict(Counter(answer.fingerprint for answer in answers if answer.fingerprint)),
        }

    def _answer(self, key: str, body: dict[str, Any], budget: int, stop: threading.Event) -> Answer:
        whole = {**body, self.token_field: budget}
        answer, cached = self.answers.get(key, budget, lambda: self.endpoint.ask(whole, budget, stop))
        self._used.append((answer, cached))
        return answer

    def _body(self, prompt: str, image: str) -> dict[str, Any]:
        content = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": prompt}]
        system = [{"role": "system", "content": self.instructions}] if self.instructions else []
        return {"model": self.name, "messages": [*system, {"role": "user", "content": content}], **self.settings}

    def _kept(self) -> str:
        folder = self.answers.folder
        return f"The {len(self._used)} answers so far are kept in {folder}: the same command goes on there."

    def _check_budget(self, new: int, budget: int) -> None:
        """Tell of new answers that are empty for want of tokens; stop where they are the rule."""
        cut, total = sum(cut_off(answer) for answer, _ in self._used), len(self._used)
        told = f"{cut} of {total} answers are empty: their {budget} tokens ran out before the first word."
        advice = f"Raise model.extra_tokens (now {self.extra_tokens}); only answers that were cut are asked again."
        if total >= ENOUGH_TO_JUDGE and cut > total / 2:
            raise HostedError(f"{self.name}: {told} {advice} {self._kept()}")
        if new:
            print(f"{self.name}: {told} They count as wrong. {advice}", file=sys.stderr)


def counted(answers: Sequence[Answer]) -> dict[str, int]:
    """Return the number of answers and of their tokens."""
    asked, answered = (sum(getattr(a, name) for a in answers) for name in ("input_tokens", "output_tokens"))
    return {"answers": len(answers), "input_tokens": asked, "output_tokens": answered}


def cut_off(answer: Answer) -> bool:
    """Tell whether the tokens ran out before the first word."""
    return answer.finish == "length" and not answer.text
