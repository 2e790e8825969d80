"""`fifty audit`: what of ours is astray on this host, and its removal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocks.settings import settings
from deployments import kvm_device, prefect_settings
from deployments.cli import output
from deployments.cli.context import Flag, Json, open_store, require_root

if TYPE_CHECKING:
    from tasks.audit import AuditReport

ASTRAY = 3
REMOVED = 4


def audit(*, fix: Flag = False, json: Json = False) -> int:
    """Compare what carries our mark on this host with what the state store says.

    Exits 0 when nothing is astray, 3 when something is, 4 when it was and all of it was
    removed. What belongs to a build that is under way is left alone: the run has it, or,
    where the build has stopped, `fifty reconcile`.

    Args:
        fix: Remove what belongs to nothing, if it has been there for FIFTY_AUDIT_GRACE
            seconds; what is recorded and not there has to be made again.
    """
    require_root("an audit")
    open_store()
    prefect_settings.require_answer(prefect_settings.prepare(settings(), console=False))
    # After prepare(): it imports Prefect.
    from blocks.world import open_world
    from tasks.audit import audit as look

    report = look(open_world(settings()), fix=fix)
    advice = kvm_device.advice()
    if json:
        output.document(
            {
                **report.model_dump(mode="json", exclude={"mended"}),
                "fixed": report.mended,
                "advice": [advice] if advice else [],
            }
        )
    else:
        _tell(report, fix=fix)
        if advice:
            output.say(f"advice: {advice}")
    if report.clean:
        return 0
    return REMOVED if report.mended else ASTRAY


def _tell(report: AuditReport, *, fix: bool) -> None:
    output.table(
        ("KIND", "NAME", "OWNER", "AGE", "WHY"),
        (
            (thing.kind, thing.name, thing.owner, output.duration(thing.age_s) or None, thing.why)
            for thing in report.astray
        ),
        "Nothing is astray.",
    )
    for line in report.failed:
        output.say(f"left: {output.plain(line)}")
    for line in report.stopped:
        output.say(f"{output.plain(line)}: `fifty reconcile` brings it to an end")
    removable = sum(thing.removable for thing in report.astray)
    if report.mended:
        output.say("All of it is removed.")
    elif fix and not report.clean:
        output.say(f"{len(report.removed)} of {len(report.astray)} removed.")
    elif removable:
        output.say(f"`fifty audit --fix` removes {removable} of {len(report.astray)}.")
