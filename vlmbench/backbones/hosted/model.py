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
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from PIL import Image
from torch import nn

from vlmbench.backbones.base import Turn
from vlmbench.backbones.hosted.answers import Answer, AnswerCache
from vlmbench.backbones.hosted.endpoint import Endpoint, HostedError

ENOUGH_TO_JUDGE = 8  # answers, of which more than half without a word mean a wrong budget


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image as an endpoint takes it.

    Attributes:
        url: Data address of a PNG file, which keeps every pixel.
        digest: SHA-256 of the pixels; versions of the PNG encoder write the same pixels as other bytes.
    """

    url: str
    digest: str

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return len(self.url)


@dataclass(frozen=True, slots=True)
class Request:
    """One question, but for the most tokens of its answer.

    Attributes:
        body: The request's JSON.
        key: SHA-256 of address, model, messages with the pixels, and further fields.
    """

    body: dict[str, Any]
    key: str


class HostedVlm:
    """A model that answers in text from behind an endpoint; nothing of it can be trained, or asked for likelihoods.

    Args:
        endpoint: Where it is asked.
        answers: Where its answers are kept.
        name: The name that it goes by at the endpoint.
        instructions: System message; empty sends none.
        settings: Further fields of each request.
        token_field: What the request calls the most tokens of an answer.
        extra_tokens: Tokens on top of those of the answer, for reasoning.
        max_side: Longest side of an image that is sent as it is.
        concurrency: Most requests at a time.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        answers: AnswerCache,
        name: str,
        *,
        instructions: str = "",
        settings: Mapping[str, Any] | None = None,
        token_field: str = "max_completion_tokens",  # noqa: S107 - a field's name
        extra_tokens: int = 0,
        max_side: int = 1024,
        concurrency: int = 4,
    ) -> None:
        self.model = nn.Module()  # without weights: what is counted and frozen elsewhere is nothing here
        self.part_prefixes: Mapping[str, tuple[str, ...]] = {}
        self.endpoint, self.answers, self.name = endpoint, answers, name
        self.instructions, self.settings = instructions, dict(settings or {})
        self.token_field, self.extra_tokens = token_field, extra_tokens
        self.max_side, self.concurrency = max_side, concurrency
        self.place = f"endpoint {urlsplit(endpoint.base_url).netloc}"
        self._used: list[tuple[Answer, bool]] = []  # list.append is atomic
        self._warned = False

    def preprocess(self, image: Image.Image) -> EncodedImage:
        """Return an RGB image as PNG, scaled down to `max_side` where it is larger."""
        if max(image.size) > self.max_side:
            image = image.copy()
            image.thumbnail((self.max_side, self.max_side), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        image.save(file, "PNG")
        pixels = hashlib.sha256(repr((image.mode, image.size)).encode() + image.tobytes())
        return EncodedImage(f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}", pixels.hexdigest())

    def collate(self, turns: Sequence[Turn], *, supervise: bool) -> list[Request]:
        """Return one request a turn.

        Raises:
            ValueError: A supervised batch is asked for.
        """
        if supervise:
            raise ValueError("a hosted model is not trained and has no supervised batches")
        requests = []
        for turn in turns:
            named = {"url": self.endpoint.base_url.rstrip("/"), **self._body(turn.prompt, turn.pixels.digest)}
            key = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()
            requests.append(Request(self._body(turn.prompt, turn.pixels.url), key))
        return requests

    def generate(self, batch: Sequence[Request], *, max_new_tokens: int) -> list[str]:
        """Return the answers, each from the cache or asked for, `concurrency` at a time.

        Raises:
            HostedError: The endpoint fails for good; what is in flight is waited for and kept, it is paid for.
        """
        budget, stop = max_new_tokens + self.extra_tokens, threading.Event()
        pool = ThreadPoolExecutor(self.concurrency)
        asked = [pool.submit(self._answer, request, budget, stop) for request in batch]
        try:
            done, _ = wait(asked, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
        for future in done:
            if isinstance(fault := future.exception(), HostedError):
                raise HostedError(f"{fault} {self._kept()}") from None
            if fault is not None:
                raise fault
        self._check_budget(budget)
        return [future.result().text for future in asked]

    def usage(self) -> dict[str, Any]:
        """Return what was asked so far.

        Returns:
            `paid` and `cached`: number of `answers` and their `input_tokens` and `output_tokens`; `no_text`: answers
            without a word by the reason for it; `retried`: faults that passed; `models` and `fingerprints` that the
            endpoint named, each with its number of answers.
        """
        used = list(self._used)
        sums = {}
        for name, cached in (("paid", False), ("cached", True)):
            answers = [answer for answer, was_there in used if was_there == cached]
            sums[name] = {
                "answers": len(answers),
                "input_tokens": sum(answer.input_tokens for answer in answers),
                "output_tokens": sum(answer.output_tokens for answer in answers),
            }
        return {
            **sums,
            "no_text": dict(Counter(answer.finish for answer, _ in used if not answer.text)),
            "retried": dict(self.endpoint.retried),
            "models": dict(Counter(answer.model for answer, _ in used)),
            "fingerprints": dict(Counter(answer.fingerprint for answer, _ in used if answer.fingerprint)),
        }

    def _answer(self, request: Request, budget: int, stop: threading.Event) -> Answer:
        body = {**request.body, self.token_field: budget}
        answer, cached = self.answers.get(request.key, budget, lambda: self.endpoint.ask(body, budget, stop))
        self._used.append((answer, cached))
        return answer

    def _body(self, prompt: str, image: str) -> dict[str, Any]:
        content = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": prompt}]
        system = [{"role": "system", "content": self.instructions}] if self.instructions else []
        return {"model": self.name, "messages": [*system, {"role": "user", "content": content}], **self.settings}

    def _kept(self) -> str:
        return (
            f"The {len(self._used)} answers so far are kept in {self.answers.folder}: the same command goes on there."
        )

    def _check_budget(self, budget: int) -> None:
        """Tell once of answers that are empty for want of tokens; stop where they are the rule."""
        cut = sum(answer.finish == "length" and not answer.text for answer, _ in self._used)
        if len(self._used) >= ENOUGH_TO_JUDGE and cut > len(self._used) / 2:
            raise HostedError(
                f"{cut} of {len(self._used)} answers ran out of their {budget} tokens before the first word: the model "
                f"reasons longer than that. Raise model.extra_tokens (now {self.extra_tokens}); only cut answers are "
                f"asked again. {self._kept()}"
            )
        if cut and not self._warned:
            self._warned = True
            print(
                f"{self.name}: {cut} of {len(self._used)} answers are empty and count as wrong, their {budget} tokens "
                f"ran out before the first word; see model.extra_tokens (now {self.extra_tokens}).",
                file=sys.stderr,
            )
