"""Holding a lease for as long as a piece of work takes."""

from __future__ import annotations

import contextvars
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from prefect import get_run_logger
from sqlalchemy.exc import SQLAlchemyError

from blocks.errors import Transient
from blocks.state.leases import Leases


@contextmanager
def holding(leases: Leases, build_id: str, held: str) -> Iterator[None]:
    """Renew a lease in the background, and give it back at the end.

    A process that was stopped for so long that another run took over is told so as by a
    SIGTERM, in the midst of a step too; what it writes down is refused by the token.

    Args:
        leases: Where it is.
        build_id: Whose.
        held: Its token.
    """
    ended = threading.Event()

    def keep() -> None:
        while not ended.wait(leases.lease_s / 4):
            try:
                kept = leases.renew(build_id, held)
            except (Transient, SQLAlchemyError) as error:
                get_run_logger().warning("the lease could not be renewed just now: %s", error)
                continue
            if not kept and not ended.is_set():
                get_run_logger().error("another run has taken over this build: this one stops")
                os.kill(os.getpid(), signal.SIGTERM)
                return

    keep_here = contextvars.copy_context().run
    keeper = threading.Thread(target=keep_here, args=(keep,), name="lease", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        leases.release(build_id, held)
