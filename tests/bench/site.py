"""The benchmarks' own site: its FIFTY_HOME, daemons, image and network; removed at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deployments import libvirt_daemons, prefect_server
from tests import sessions
from tests.bench.figures import say
from tests.cloud import Cloud

EXTERNAL = ("external", "--external", "--type", "flat", "--cidr", "172.29.79.0/24")
LAB = ("lab", "--cidr", "10.79.1.0/24", "--router", "gate", "--external-network", "external")


@contextmanager
def site(directory: Path, port: int) -> Iterator[Cloud]:
    """An initialized site with the image `micro` and the network `lab` with its router.

    Args:
        directory: The session's.
        port: For the Prefect server.
    """
    home = directory / "home"
    libvirt_daemons.use(home)
    try:
        say("starting a Prefect server, and building the image and the network")
        cloud = Cloud(home, prefect_server.start(home, port).api_url)
        document = cloud.json("init", "--api-url", cloud.api_url)
        sessions.note_site(directory, document["site"])
        cloud.fifty("image", "build", "micro")
        cloud.fifty("network", "create", *EXTERNAL)
        cloud.fifty("network", "create", *LAB)
        yield cloud
        for vm in cloud.json("vm", "list"):
            cloud.fifty("vm", "delete", vm["name"])
        cloud.fifty("network", "delete", "lab")
        cloud.fifty("router", "delete", "gate")
        cloud.fifty("network", "delete", "external")
    finally:
        prefect_server.stop(home)
        libvirt_daemons.leave(home)
