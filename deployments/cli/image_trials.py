"""`fifty image certify` and `capture`: an image booted and tested, and one made of a VM."""

from __future__ import annotations

from deployments.cli import image_views, output
from deployments.cli.context import Credentials, Flag, Json, request_of, require_root
from deployments.cli.detaching import Detach, send
from deployments.cli.flow_runs import run_flow
from deployments.cli.scope import open_scope

#: The exit code where a test did not pass.
NOT_PASSED = 3


def certify(
    name: str,
    /,
    *,
    flavor: str | None = None,
    timezone: str | None = None,
    detach: Detach = False,
    credentials: Credentials = None,
    json: Json = False,
) -> int:
    """Boot an image in a trial VM, test it from inside and outside, and keep the certificate.

    The trial VM is deleted, whatever happens. Exits 0 where each test passed, 3 where one did
    not.

    Args:
        name: The image: NAME, NAME:VERSION or its id.
        flavor: Of the trial VM (default: the smallest whose disk is larger than the image's).
        timezone: The one that the image is meant to be in (default: UTC).
    """
    request = request_of(credentials, name=name, flavor=flavor, timezone=timezone)
    if detach:
        send("certify-image", request, json=json, look=f"fifty image show {name}")
        return 0
    require_root("booting an image")
    if not json:
        output.note(f"Booting {output.plain(name)} and testing it; this takes a minute or so.")
    run_flow("certify_image", request).require_success()
    image = open_scope(credentials).image(name)
    held = image.certificate or {}
    if json:
        output.document(held)
    else:
        told = image_views.certificate(held, image.sha256)
        output.facts([("image", image.reference), *told])
    return 0 if held["passed"] else NOT_PASSED


def capture(
    vm: str,
    name: str,
    /,
    *,
    version: str | None = None,
    as_it_is: Flag = False,
    quiesce: Flag = False,
    detach: Detach = False,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Make an image of a VM's root disk, running or off; the VM goes on as it was.

    What makes it one certain machine is taken out: machine id, host keys, leases,
    cloud-init's state, network names, login keys, logs.

    Args:
        vm: The VM's name or id.
        name: What the image is to be called.
        version: Tells it from others of its name (default: 1).
        as_it_is: Take nothing out of it.
        quiesce: Have the guest's agent flush and freeze its file systems for the moment.
    """
    request = request_of(
        credentials,
        vm=vm,
        name=name,
        version=version,
        generalise=False if as_it_is else None,
        quiesce=quiesce or None,
    )
    if detach:
        send("capture-image", request, json=json, look="fifty image list")
        return
    require_root("making an image")
    run_flow("capture_image", request).require_success()
    image_views.tell(
        open_scope(credentials).image(f"{name}:{version}" if version else name), json=json
    )
