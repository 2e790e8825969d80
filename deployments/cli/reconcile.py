"""`fifty reconcile`: bring every build that stopped to an end, now."""

from __future__ import annotations

from deployments.cli import output
from deployments.cli.context import Json, open_store, require_root
from deployments.cli.flow_runs import connect, run_flow


def reconcile(*, json: Json = False) -> int:
    """Bring every build that stopped to an end, as its --on-interrupt says.

    A build has stopped when no process works on it any more: it was killed, or the host
    was. Those that a process works on are left alone. Exits 1 where one is at no end.
    """
    require_root("reconciling")
    store = open_store()
    connect()
    # After connect(): it imports Prefect.
    from tasks.reconcile import stopped_builds

    stopped = stopped_builds(store)
    done = run_flow("reconcile", {}) if stopped else None
    found = [
        {
            "kind": build.catalogue,
            "id": build.id,
            "name": build.name,
            "stopped_while": build.state,
            "state": after.state,
            "fault": after.fault,
        }
        for build in stopped
        for after in (store.builds.get(build.id),)
    ]
    if json:
        output.document({"reconciled": found, "url": done.url if done else None})
    else:
        output.table(
            ("KIND", "NAME", "STOPPED WHILE", "IS NOW"),
            ((item["kind"], item["name"], item["stopped_while"], item["state"]) for item in found),
            "No build had stopped.",
        )
    if done is None:
        return 0
    if not json and done.url:
        output.say(f"run  {output.plain(done.url)}")
    return 0 if done.error is None else 1
