"""The watch over runs whose process is gone: one run that is deleted does not end it.

The client is a stand-in: no server can be had to delete a run just between two questions.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.exceptions import ObjectNotFound

from deployments import prefect_watch
from deployments.service import settle


class Client:
    """Has two runs at work: one whose parent was deleted, and one whose process is gone."""

    def __init__(self) -> None:
        self.orphan = self._run(None, uuid4())
        self.dead = self._run("host:1:2:boot", None)

    @staticmethod
    def _run(pid: str | None, parent: UUID | None) -> SimpleNamespace:
        return SimpleNamespace(
            id=uuid4(), name="run", infrastructure_pid=pid, parent_task_run_id=parent
        )

    async def read_flow_runs(self, **_question: object) -> list[SimpleNamespace]:
        """Both, the orphan first."""
        return [self.orphan, self.dead]

    async def read_task_run(self, _id: UUID) -> SimpleNamespace:
        """It was deleted."""
        raise ObjectNotFound(KeyError())


def test_a_deleted_parent_keeps_no_other_run_from_being_settled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client, settled = Client(), []

    async def gone(_client: object, run: Any) -> None:  # noqa: ANN401 - a flow run
        settled.append(run.id)

    monkeypatch.setattr(settle, "has_no_process", lambda _run, _host: True)
    monkeypatch.setattr(settle, "gone", gone)
    known = cast("PrefectClient", client)
    before = asyncio.run(prefect_watch._look(known, "host", set()))
    assert before == {client.dead.id}
    assert settled == []
    asyncio.run(prefect_watch._look(known, "host", before))
    assert settled == [client.dead.id]
