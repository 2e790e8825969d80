"""An idempotency key that comes again: is it the same request?

Prefect answers 200 with the first run, and says nothing of parameters that differ. Our
server and `--detach` tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MISSING = object()


def differing(first: Any, again: Any, at: str = "") -> list[str]:  # noqa: ANN401 - any JSON
    """Where two sets of parameters differ: the names of the fields, not their values.

    Args:
        first: The parameters of the run that there is.
        again: Those that came with its idempotency key.
        at: The name of what is compared; the outermost has none.

    Returns:
        Such as `request.flavor`, sorted; empty where they are the same.
    """
    if isinstance(first, Mapping) and isinstance(again, Mapping):
        found = []
        for name in sorted({*first, *again}):
            inner = f"{at}.{name}" if at else str(name)
            found += differing(first.get(name, _MISSING), again.get(name, _MISSING), inner)
        return found
    return [] if first == again else [at]


def conflict(key: str, flow_run_id: str, fields: list[str]) -> str:
    """What is wrong, in words."""
    shown = ", ".join(fields[:20]) + (" and others" if len(fields) > 20 else "")
    return (
        f"the idempotency key {key!r} is that of the flow run {flow_run_id}, which has other "
        f"parameters; they differ in {shown}"
    )
