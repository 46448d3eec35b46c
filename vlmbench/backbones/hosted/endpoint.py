"""One question to an OpenAI-compatible endpoint: what is tried again, what ends the run, what is an answer."""

from __future__ import annotations

import math
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

from vlmbench.backbones.hosted.answers import Answer
from vlmbench.errors import UserError

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds of the back-off, which doubles in between
LONGEST_ASKED = 600.0  # an endpoint that wants a longer pause has a quota that is used up
PASSING = (408, 409, 429)


class HostedError(UserError):
    """An endpoint does not answer, or not in a way that can be used; the message never holds the key."""


class TryAgain(Exception):  # noqa: N818 - a request, not an error
    """A fault that may pass.

    Args:
        reason: In a few words of ours, the same for faults of one kind; it goes into the record.
        after: Seconds that the endpoint asks to wait.
        said: What the endpoint says of it.
    """

    def __init__(self, reason: str, after: float = 0.0, said: object = "") -> None:
        super().__init__(reason)
        self.reason, self.after, self.said = reason, after, brief(said)


class Endpoint:
    """A client of `/chat/completions`.

    Args:
        base_url: Its address.
        api_key_env: Environment variable that holds the key; empty for none.
        timeout: Seconds until a request counts as lost.
        retries: Tries after the first.
    """

    def __init__(self, base_url: str, api_key_env: str = "", *, timeout: float = 300.0, retries: int = 6) -> None:
        self.base_url, self.api_key_env = base_url, api_key_env
        self.timeout, self.retries = timeout, retries
        self.retried: Counter[str] = Counter()
        self._lock = threading.Lock()

    @cached_property
    def client(self) -> Any:
        """The SDK's client, made at the first question; it does not retry by itself: broken answers count here too."""
        from openai import OpenAI

        # Without a key of its own the SDK would send OPENAI_API_KEY, whoever the address belongs to.
        return OpenAI(base_url=self.base_url, api_key=self._key or "none", timeout=self.timeout, max_retries=0)

    def ask(self, body: Mapping[str, Any], budget: int, stop: threading.Event) -> Answer:
        """Return the answer to one request, tried again with growing, jittered pauses while its fault may pass.

        Args:
            body: The request's JSON.
            budget: The most tokens that it allows, for the answer's record.
            stop: Set when nobody waits for the answer any more; ends a pause.

        Raises:
            HostedError: The fault does not pass, or did not within the tries.
        """
        fault = TryAgain("")
        for tried in range(self.retries + 1):
            try:
                return read_answer(self._send(body), budget)
            except TryAgain as again:
                fault = again
            if fault.after > LONGEST_ASKED:
                raise HostedError(
                    self.redacted(f"{self.base_url}: {fault.reason}, wait {fault.after:,.0f} s. {fault.said}".rstrip())
                )
            if tried < self.retries:
                self._note(fault.reason)
                if stop.wait(fault.after + min(LONGEST_WAIT, FIRST_WAIT * 2**tried) * random.uniform(0.5, 1)):
                    break
        tries = f"after {tried + 1} tries (model.retries={self.retries})"
        raise HostedError(self.redacted(f"{self.base_url}: {fault.reason}, {tries}. {fault.said}".rstrip()))

    def redacted(self, text: str) -> str:
        """Return a text in which the key, should an endpoint have repeated it, is struck out."""
        return text.replace(self._key, "[key]") if self._key else text

    @property
    def _key(self) -> str:
        return os.environ.get(self.api_key_env, "").strip() if self.api_key_env else ""

    def _send(self, body: Mapping[str, Any]) -> Any:
        import openai

        rest = {key: value for key, value in body.items() if key not in ("model", "messages")}
        # `from None` below: the causes hold the request with its headers, and a traceback goes into the record.
        try:
            reply = self.client.chat.completions.create(model=body["model"], messages=body["messages"], extra_body=rest)
        except openai.APITimeoutError:
            raise TryAgain(f"no answer within {self.timeout:g} s (model.timeout)") from None
        except openai.APIConnectionError:
            raise TryAgain("no connection, or it was lost") from None
        except openai.APIStatusError as error:
            if error.code == "content_filter":  # Azure's way of declining a question
                return {"choices": [{"finish_reason": "content_filter", "message": {}}]}
            raise self._judged(error) from None
        except ValueError:
            raise TryAgain("an answer that is not JSON") from None
        return reply.to_dict(warnings=False) if hasattr(reply, "to_dict") else reply

    def _judged(self, error: Any) -> Exception:
        """Return what a status of 4xx or 5xx means: a fault that passes, or the run's end."""
        status, headers = error.status_code, error.response.headers
        told = error.body.get("message") if isinstance(error.body, dict) else None
        said = brief(told or error.body or error.message)
        passing = status in PASSING or status >= 500
        if passing and error.code != "insufficient_quota" and headers.get("x-should-retry") != "false":
            return TryAgain(f"status {status}", retry_after(headers.get("retry-after", "")), said)
        hint = f" Check the key in {self.api_key_env or 'model.api_key_env'}." if status in (401, 403) else ""
        hint = hint or (" Check model.source, model.token_field and model.settings." if status < 429 else "")
        return HostedError(self.redacted(f"{self.base_url} refuses the request with status {status}: {said}.{hint}"))

    def _note(self, reason: str) -> None:
        with self._lock:
            self.retried[reason] += 1
            first = self.retried[reason] == 1
        if first:
            print(f"{self.base_url}: {reason}; trying again, {self.retries} times at most.", file=sys.stderr)


def read_answer(reply: Any, budget: int) -> Answer:
    """Return the answer in a completion's JSON.

    A model that declines, or whose tokens ran out before its first word, has answered with nothing: asking again would
    be paid for again and end the same way.

    Raises:
        TryAgain: It is no completion, or has no text and says of no reason for that.
    """
    if not isinstance(reply, dict):
        raise TryAgain("an answer that is no completion")
    if not isinstance(choices := reply.get("choices"), list) or not choices:
        raise TryAgain("an answer without choices", said=reply.get("error") or "")
    choice = table(choices[0])
    message = table(choice.get("message"))
    finish, text, refusal = str(choice.get("finish_reason") or ""), message.get("content"), message.get("refusal")
    if text is None and refusal:
        text, finish = str(refusal), "content_filter"
    if text is None and finish in ("length", "content_filter"):
        text = ""
    if not isinstance(text, str):
        raise TryAgain(f"an answer without text (finish_reason {finish or 'missing'})")
    usage = table(reply.get("usage"))
    asked, said = (
        value if type(value := usage.get(f"{kind}_tokens")) is int else 0 for kind in ("prompt", "completion")
    )
    model, fingerprint = (str(reply.get(field) or "") for field in ("model", "system_fingerprint"))
    return Answer(text.strip(), finish, model, fingerprint, asked, said, budget)


def table(value: object) -> dict[str, Any]:
    """Return a JSON object, empty where the value is none."""
    return value if isinstance(value, dict) else {}


def brief(value: object) -> str:
    """Return a value's first words on one line."""
    return " ".join(str(value).split())[:300]


def retry_after(header: str) -> float:
    """Return the seconds that a `Retry-After` header asks to wait, given as a number or as a date; 0 if it is neither.

    Source: RFC 9110, section 10.2.3.
    """
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
