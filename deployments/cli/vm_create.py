"""`fifty vm create`: the request from its options and files, and its build."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from blocks.state import Build
from deployments import defaults
from deployments.cli.context import (
    Credentials,
    Flag,
    Json,
    Several,
    credentials_name,
    require_root,
)
from deployments.cli.detaching import Detach, send
from deployments.cli.files import Findings
from deployments.cli.scope import open_scope
from deployments.cli.vm_runs import ended, run_vm_flow, tell


def create(
    name: str,
    /,
    *,
    image: str,
    network: Annotated[list[str], Parameter(negative="")],
    flavor: str = "tiny",
    key: str = defaults.KEY_PAIR,
    user_data: str | None = None,
    user_data_secret: str | None = None,
    inject: Several = None,
    volume: Several = None,
    security_group: Several = None,
    fixed_ip: str | None = None,
    floating: Flag = False,
    zone: str | None = None,
    host: str | None = None,
    on_failure: Literal["rollback", "keep"] = "rollback",
    on_interrupt: Literal["resume", "rollback"] = "resume",
    request_id: str | None = None,
    detach: Detach = False,
    credentials: Credentials = None,
    json: Json = False,
) -> None:
    """Create a VM, and draw its fifty steps.

    Args:
        name: The VM's name, which is the guest's host name too.
        image: What its disk begins as.
        network: NETWORK or NETWORK:ADDRESS, a network to put it into, and its address there;
            can be given several times, in the order of its interfaces.
        flavor: Its size.
        key: Who may log in: a key pair's name, or a file with an OpenSSH key.
        user_data: A file for cloud-init.
        user_data_secret: Instead: the name of a Prefect Secret block that holds it.
        inject: SRC:DST, a file to put into its disk; can be given several times.
        volume: A data volume of so many GiB; can be given several times.
        security_group: What may reach it (default: default); can be given several times.
        fixed_ip: Its address on the first network (as NETWORK:ADDRESS).
        floating: Also a floating IP.
        zone: Only on hosts of this zone.
        host: On this host; admins only.
        on_failure: Undo everything, or keep it for looking inside.
        on_interrupt: What `fifty reconcile` does with it where its process was killed.
        request_id: The same id again is the same VM, however often it is sent.
    """
    request = _request(
        {
            "name": name,
            "image": image,
            "flavor": flavor,
            "networks": network,
            "security_groups": security_group,
            "fixed_ip": fixed_ip,
            "floating": floating or None,
            "user_data_secret": user_data_secret,
            "zone": zone,
            "host": host,
            "on_failure": on_failure,
            "on_interrupt": on_interrupt,
            "request_id": request_id if request_id is not None else str(uuid.uuid4()),
            "credentials": credentials_name(credentials),
        },
        key=key,
        user_data=user_data,
        inject=inject or [],
        volume=volume or [],
    )
    if detach:
        send("create-vm", request, json=json, look=f"fifty vm steps {name}")
        return
    require_root("creating a VM")
    store = open_scope(credentials).store

    def find() -> Build | None:
        return store.builds.of_request("vm", request["credentials"], request["request_id"])

    done = run_vm_flow("create_vm", request, store, find, f"Creating {name}", as_json=json)
    tell(ended(done, store, find()), json=json)


def _request(
    form: Mapping[str, Any],
    *,
    key: str,
    user_data: str | None,
    inject: list[str],
    volume: list[str],
) -> dict[str, Any]:
    """The request as the flow takes it; only the files are looked at here.

    Raises:
        InvalidRequest: Files cannot be read, or words have the wrong form; all of them.
    """
    findings = Findings()
    files = {
        "key": findings.key(key),
        "user_data": findings.user_data(user_data) if user_data is not None else None,
        "inject": [findings.injected(pair) for pair in inject] or None,
        "volumes": [findings.whole("--volume", size) for size in volume] or None,
    }
    findings.refuse()
    return {field: value for field, value in {**form, **files}.items() if value is not None}
