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
from dataclasses import replace
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

from vlmbench.errors import UserError
from vlmbench.hosted.answers import Answer

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds of the back-off, which doubles in between
LONGEST_ASKED = 600.0  # an endpoint that asks for a longer pause has a quota that is used up
PASSING = (408, 409, 429)


class HostedError(UserError):
    """An endpoint does not answer, or not in a way that can be used; the message never holds the key."""


class TryAgain(Exception):  # noqa: N818 - a request, not an error
    """A fault that may pass.

    Args:
        reason: In a few words of ours, the same for faults of one kind; it goes into the record.
        said: What the endpoint says of it.
        after: Seconds that the endpoint asks to wait.
    """

    def __init__(self, reason: str, said: object = "", after: float = 0.0) -> None:
        super().__init__(reason)
        self.reason, self.said, self.after = reason, str(said), after


class Endpoint:
    """A client of `/chat/completions`.

    Args:
        base_url: Its address.
        api_key_env: Environment variable that holds the key; empty for none.
        timeout: Seconds without a byte until a request counts as lost.
        retries: Tries after the first.
    """

    def __init__(self, base_url: str, api_key_env: str = "", *, timeout: float = 300.0, retries: int = 6) -> None:
        self.base_url, self.api_key_env = base_url, api_key_env
        self.timeout, self.retries = timeout, retries
        self.retried: Counter[str] = Counter()
        self._lock = threading.Lock()

    @cached_property
    def client(self) -> Any:
        """The SDK's client; it does not retry by itself, so that broken answers and lost ones count together here."""
        from openai import OpenAI

        # Without a key the SDK would send OPENAI_API_KEY, whoever the address belongs to.
        client = OpenAI(base_url=self.base_url, api_key=self._key or "none", timeout=self.timeout, max_retries=0)
        # Nor what else the environment holds for another address: account, project, headers with secrets in them.
        client.organization = client.project = None
        client._custom_headers = {}
        return client

    def ask(self, body: Mapping[str, Any], budget: int, stop: threading.Event) -> Answer:
        """Return the answer to one request, tried again with growing, jittered pauses while its fault may pass.

        Args:
            body: The request's JSON.
            budget: The most tokens that it allows.
            stop: Set when nobody waits for the answer any more; ends a pause.

        Raises:
            HostedError: The fault does not pass, or did not within the tries.
        """
        for tried in range(1, self.retries + 2):
            try:
                answer = read_answer(self._send(body), budget)
                text, model, fingerprint = map(self._without_key, (answer.text, answer.model, answer.fingerprint))
                return replace(answer, text=text, model=model, fingerprint=fingerprint)
            except TryAgain as again:
                fault = again
                fault.said = brief(self._without_key(fault.said))
            if tried <= self.retries:
                self._note(fault.reason)
                if stop.wait(fault.after + min(LONGEST_WAIT, FIRST_WAIT * 2 ** (tried - 1)) * random.uniform(0.5, 1)):
                    break
        raise self._ended(f"{fault.reason}, after {tried} tries (model.retries={self.retries}). {fault.said}")

    @property
    def _key(self) -> str:
        return os.environ.get(self.api_key_env, "").strip() if self.api_key_env else ""

    def _send(self, body: Mapping[str, Any]) -> Any:
        import openai

        rest = {key: value for key, value in body.items() if key not in ("model", "messages")}
        # `from None`: the causes hold the request with its headers, and a traceback goes into the record.
        try:
            reply = self.client.chat.completions.create(model=body["model"], messages=body["messages"], extra_body=rest)
        except openai.APITimeoutError:
            raise TryAgain(f"no answer within {self.timeout:g} s (model.timeout)") from None
        except openai.APIConnectionError:
            raise TryAgain("no connection, or it was lost") from None
        except openai.APIStatusError as error:
            if error.code == "content_filter":  # Azure's way of declining a question
                return {"choices": [{"finish_reason": "content_filter"}]}
            raise self._judged(error) from None
        except (ValueError, RecursionError):
            raise TryAgain("an answer that is not JSON") from None
        return reply.to_dict(warnings=False) if hasattr(reply, "to_dict") else reply

    def _judged(self, error: Any) -> Exception:
        """Return what a status of 4xx or 5xx means: a fault that may pass, or the run's end."""
        status, headers = error.status_code, error.response.headers
        said = brief(self._without_key(table(error.body).get("message") or error.body or error.message))
        after = retry_after(headers.get("retry-after", ""))
        final = error.code == "insufficient_quota" or headers.get("x-should-retry") == "false" or after > LONGEST_ASKED
        if (status in PASSING or status >= 500) and not final:
            return TryAgain(f"status {status}", said, after)
        hint = "Check model.source, model.token_field and model.settings." if status < 429 else ""
        hint = "The image is too large for it: lower model.max_side." if status == 413 else hint
        hint = f"Check the key in {self.api_key_env or 'model.api_key_env'}." if status in (401, 403) else hint
        hint = f"It asks to wait {after:,.0f} s." if after else hint
        return self._ended(f"status {status}: {said.rstrip('.')}. {hint}")

    def _ended(self, text: str) -> HostedError:
        return HostedError(self._without_key(f"{self.base_url}: {text}".rstrip()))

    def _without_key(self, value: object) -> str:
        """Return a text of the endpoint's, which may have repeated the key."""
        return str(value).replace(self._key, "[key]") if self._key else str(value)

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
        TryAgain: It is no completion, or has no text and gives no reason for that.
    """
    choices = table(reply).get("choices")
    if not isinstance(choices, list) or not choices:
        raise TryAgain("an answer without choices", table(reply).get("error") or "")
    choice, usage = table(choices[0]), table(reply.get("usage"))
    message, finish = table(choice.get("message")), str(choice.get("finish_reason") or "")
    text = message.get("content")
    if isinstance(text, list):  # the form of the messages API: parts, of which some are text
        text = "".join(str(table(part).get("text") or "") for part in text)
    if text is None and message.get("refusal"):
        text, finish = str(message["refusal"]), "content_filter"
    if text is None and finish in ("length", "content_filter"):
        text = ""
    if not isinstance(text, str):
        raise TryAgain(f"an answer without text (finish_reason {finish or 'missing'})")
    model, fingerprint = (str(reply.get(name) or "") for name in ("model", "system_fingerprint"))
    counts = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
    asked, answered = (count if isinstance(count, int) else 0 for count in counts)
    # Half of a pair of surrogates is no text that can be stored.
    text = text.encode("utf-8", "replace").decode()
    return Answer(text.strip(), finish, model, fingerprint, asked, answered, budget)


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


def table(value: object) -> dict[str, Any]:
    """Return a JSON object, empty where the value is none."""
    return value if isinstance(value, dict) else {}


def brief(value: object) -> str:
    """Return a value's first words on one line."""
    return " ".join(str(value).split())[:300]
