"""Questions asked several at a time, until the first that cannot be answered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")


def together(
    calls: Sequence[Callable[[threading.Event], T]], concurrency: int
) -> tuple[list[Future[T]], set[Future[T]]]:
    """Make calls in threads; after the first that raises no further one begins, and what is in flight is waited for.

    Args:
        calls: Each takes the event that is set once it is no use to go on.
        concurrency: Most calls at a time.

    Returns:
        The futures in the order of the calls, and those that had ended when the first raised, or all.
    """
    stop, pool = threading.Event(), ThreadPoolExecutor(concurrency)
    futures = [pool.submit(call, stop) for call in calls]
    for future in futures:
        # In the thread that failed, so that it takes up no further call.
        future.add_done_callback(lambda done: stop.set() if not done.cancelled() and done.exception() else None)
    try:
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
    return futures, done
