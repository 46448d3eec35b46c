"""A hosted model's address, key and settings: what is wrong with them, told before anything is imported or asked."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

# What the client itself puts into a request, or what would change the form of the answer.
RESERVED = {"model", "messages", "stream", "n", "max_tokens", "max_completion_tokens"}
# Settings are written into the record.
SECRET = re.compile(r"(key|token|secret|password|authorization|credentials?|headers)$")


def endpoint_fault(base_url: str, api_key_env: str, settings: Mapping[str, Any], environ: Mapping[str, str]) -> str:
    """Return what is wrong with a hosted model's configuration and how to mend it; empty where nothing is.

    No message repeats what may be a key in the wrong place. That there is no key is no mistake, see `key_absence`.

    Args:
        base_url: Address of the endpoint.
        api_key_env: Name of the environment variable that holds the key.
        settings: Further fields of each request.
        environ: The environment.
    """
    if re.search(r"[@?#\s]", base_url):
        return (
            "model.base_url holds a user, a query or a blank. It is written into the record, so give the bare address, "
            "such as https://host/v1, and name the key's environment variable in model.api_key_env."
        )
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        return f"model.base_url={base_url!r} is not an address such as https://host/v1 or http://localhost:8000/v1."
    for name in names_in(settings):
        if SECRET.search(re.sub(r"[-_]", "", name).lower()):
            return (
                f"model.settings.{name} looks like a credential, and settings are written into the record. Keys are "
                "read from the environment variable that model.api_key_env names, and from nowhere else."
            )
        if name in RESERVED:
            return (
                f"model.settings.{name} is not for settings: model.source, model.token_field, model.extra_tokens and "
                "task.max_new_tokens say what is asked, and each request takes one whole answer."
            )
    return _key_fault(api_key_env, environ) or _transport_fault(parts.scheme, host, api_key_env)


def names_in(settings: object) -> list[str]:
    """Return every key of nested settings."""
    if isinstance(settings, Mapping):
        return [name for key, value in settings.items() for name in (str(key), *names_in(value))]
    if isinstance(settings, list | tuple):
        return [name for value in settings for name in names_in(value)]
    return []


def endpoint_name(base_url: str, model: str) -> str:
    """Return what stands in for the hash of weights that nobody can see: where a hosted model is and its name there."""
    parts = urlsplit(base_url)
    return f"{parts.netloc.lower()}{parts.path.rstrip('/')}/{model}"


def key_absence(api_key_env: str, environ: Mapping[str, str]) -> str:
    """Return how to give a hosted model its key where the environment has none, else an empty text."""
    if not api_key_env or environ.get(api_key_env, "").strip():
        return ""
    return (
        f"the environment variable {api_key_env}, which model.api_key_env names, is not set. Put the key there "
        f"(export {api_key_env}=...) in the shell that runs this command; no file or option takes it."
    )


def _key_fault(api_key_env: str, environ: Mapping[str, str]) -> str:
    if not api_key_env:
        return ""
    # A name of the environment ends in a word; a key that happens to be in capitals has digits in it.
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", api_key_env) or (
        api_key_env not in environ and len(re.findall(r"\d", api_key_env)) > 3
    ):
        return (
            "model.api_key_env is the name of an environment variable in capitals, such as OPENAI_API_KEY, not the key "
            "itself. If what was given is a key, take it out of the file or the shell's history."
        )
    key = environ.get(api_key_env, "").strip()
    if key and not re.fullmatch(r"[!-~]+", key):
        return f"the environment variable {api_key_env} holds blanks or characters that no key has. Set it again."
    return ""


def _transport_fault(scheme: str, host: str, api_key_env: str) -> str:
    if scheme == "https" or not api_key_env or is_local(host):
        return ""
    return (
        f"model.base_url is plain http to {host}, which would send the key in {api_key_env} readable to everyone on "
        "the way. Take https, or reach the server over a tunnel (ssh -L) as http://localhost:PORT/v1."
    )


def is_local(host: str) -> bool:
    """Tell whether a host is this machine by its name or address alone; a tunnel may still lead elsewhere."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
