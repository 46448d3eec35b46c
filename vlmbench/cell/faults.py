"""What went wrong with a cell, and what its user can do about it."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from typing import Any

from vlmbench.errors import UserError

LESS_MEMORY = (
    "Lower trainer.batch_size and trainer.eval_batch_size (trainer.accumulate_grad_batches keeps the effective size), "
    "take trainer.precision=bf16-mixed, a smaller domain or model, or fewer cells at a time."
)
MORE_ROOM = "Make room there, or set another output=, and launch again: the cell goes on where it stopped."
# What torch says on a CPU is a plain RuntimeError, and what its workers say is one too.
_MEMORY_WORDS = ("can't allocate memory", "cannot allocate memory", "out of memory", "is killed by signal: killed")
_SHARED_WORDS = ("out of shared memory", "insufficient shared memory", "killed by signal: bus error")
_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "no larger file may be",
}


def describe(error: BaseException) -> dict[str, Any]:
    """Return type, message and traceback of an exception, and whether it is one that a user can mend.

    Where memory or disk has run out, the message says what to do.
    """
    trace = "".join(traceback.format_exception(error))
    told = advised(error)
    return {
        "type": type(error).__name__,
        "message": told or str(error),
        "traceback": trace,
        "mendable": isinstance(error, UserError) or bool(told),
    }


def advised(error: BaseException) -> str:
    """Return what an error says with what to do about it; empty where there is nothing to add."""
    if isinstance(error, UserError):  # says so itself
        return ""
    said = " ".join(str(error).split())
    for link in _chain(error):
        words = str(link).lower()
        if isinstance(link, OSError) and link.errno in _FULL:
            return f"{_FULL[link.errno]} ({said}). {MORE_ROOM}"
        if any(text in words for text in _SHARED_WORDS):
            return f"out of shared memory ({said}). Lower trainer.num_workers, or give /dev/shm more room."
        if isinstance(link, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(link).__mro__):
            return f"out of memory ({said or 'Python could not allocate more'}). {LESS_MEMORY}"
        if isinstance(link, RuntimeError | OSError) and any(text in words for text in _MEMORY_WORDS):
            return f"out of memory ({said}). {LESS_MEMORY}"
    return ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what led to it."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__
