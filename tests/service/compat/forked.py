"""A function in a forked process, which must end well."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

END_S = 60


def in_fork(do: Callable[..., Any], *arguments: Any) -> Any:
    """Run it in a child, and give what it gives, or raise what it raises."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def run() -> None:
        try:
            sender.send((True, do(*arguments)))
        except Exception as error:  # noqa: BLE001  It is raised by the parent.
            sender.send((False, error))

    child = context.Process(target=run)
    child.start()
    sender.close()
    try:
        assert receiver.poll(END_S), "the child said nothing"
        is_good, outcome = receiver.recv()
    finally:
        child.kill()
        child.join()
        receiver.close()
    if not is_good:
        raise outcome
    return outcome
