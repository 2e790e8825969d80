"""`fifty image check` and `fifty image edit`: an image's files, without booting it."""

from __future__ import annotations

from deployments.cli import image_views, output
from deployments.cli.context import Credentials, Flag, Json, Several, request_of, require_root
from deployments.cli.detaching import Detach, send
from deployments.cli.files import Findings
from deployments.cli.flow_runs import run_flow
from deployments.cli.scope import open_scope

#: The exit code where a point of the check failed.
NOT_PASSED = 3


def check(
    name: str,
    /,
    *,
    method: str | None = None,
    detach: Detach = False,
    credentials: Credentials = None,
    json: Json = False,
) -> int:
    """Check an image's files without booting it; the report is kept with the image.

    Exits 0 where no point failed, 3 where one did.

    Args:
        name: The image: NAME, NAME:VERSION or its id.
        method: The way in: debugfs, loop, nbd or libguestfs (default: debugfs where it can).
    """
    request = request_of(credentials, name=name, method=method)
    if detach:
        send("check-image", request, json=json, look=f"fifty image show {name}")
        return 0
    require_root("looking into an image")
    run_flow("check_image", request).require_success()
    report = (open_scope(credentials).image(name).report or {})["check"]
    if json:
        output.document(report)
    else:
        output.facts(image_views.check(report))
    failed = any(one["verdict"] == "fail" for one in report["findings"])
    return NOT_PASSED if failed else 0


def edit(
    image: str,
    name: str,
    /,
    *,
    inject: Several = None,
    remove: Several = None,
    generalise: Flag = False,
    version: str | None = None,
    method: str | None = None,
    detach: Detach = False,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Make an image from another one by changing files in it, without booting it.

    Args:
        image: The image to change; it stays as it is.
        name: What the new one is to be called.
        inject: SRC:DST, a file of this host and where it goes.
        remove: A file or directory of the image.
        generalise: Take out what makes it one certain machine: machine id, host keys, leases,
            cloud-init's state, network names, login keys, logs.
        version: Tells it from others of its name (default: 1).
        method: The way in: debugfs, loop, nbd or libguestfs (default: debugfs where it can).
    """
    findings = Findings()
    request = request_of(
        credentials,
        image=image,
        name=name,
        inject=[findings.injected(pair) for pair in inject or []] or None,
        remove=remove or None,
        generalise=generalise or None,
        version=version,
        method=method,
    )
    findings.refuse()
    if detach:
        send("edit-image", request, json=json, look="fifty image list")
        return
    require_root("making an image")
    run_flow("edit_image", request).require_success()
    image_views.tell(
        open_scope(credentials).image(f"{name}:{version}" if version else name), json=json
    )
