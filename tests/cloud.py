"""Fifty Steps as its users have it: the command `fifty`, and the world that it works on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from blocks.guest import login_command
from blocks.marks import dhcp_namespace
from blocks.resources import Instance, Port
from blocks.settings import settings
from blocks.state import Build, Entry
from blocks.world import World, open_world
from tests.inventory import host_inventory

TIMEOUT_S = 600


class Cloud:
    """A site of the tests: its own FIFTY_HOME, its own Prefect server.

    Args:
        home: FIFTY_HOME.
        api_url: The Prefect API.
    """

    def __init__(self, home: Path, api_url: str) -> None:
        self.home = home
        self.api_url = api_url

    def fifty(self, *words: str, fault: str = "", code: int | None = 0) -> str:
        """Run `fifty`, check its exit code, and give back its standard output.

        Args:
            words: Its arguments.
            fault: FIFTY_FAULT.
            code: The exit code that it must have; None for any.
        """
        done = self.run(*words, fault=fault)
        told = f"fifty {' '.join(words)}\n{done.stdout}\n{done.stderr}"
        assert code is None or done.returncode == code, f"exit {done.returncode}: {told}"
        assert "Traceback" not in done.stderr, told
        return done.stdout

    def run(self, *words: str, fault: str = "") -> subprocess.CompletedProcess[str]:
        """Run `fifty`, whatever comes of it."""
        return subprocess.run(
            [str(Path(sys.executable).with_name("fifty")), *words],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env=self.environment(fault),
            stdin=subprocess.DEVNULL,
            check=False,
        )

    @staticmethod
    def environment(fault: str) -> dict[str, str]:
        """The environment in which `fifty` runs, with this FIFTY_FAULT."""
        return {**os.environ, "FIFTY_FAULT": fault} if fault else dict(os.environ)

    def json(self, *words: str, fault: str = "", code: int | None = 0) -> Any:  # noqa: ANN401
        """Run `fifty ... --json` and give back the document."""
        return json.loads(self.fifty(*words, "--json", fault=fault, code=code))

    def delete(self, names: Iterable[str]) -> None:
        """Delete VMs by name or id, in one process."""
        words = sorted(names)
        if words:
            self.fifty("vm", "delete", *words)

    def ssh(self, name: str, command: str) -> str:
        """Run a command in a guest, over SSH; what `fifty vm ssh` does, without its start."""
        instance, port = self.instance(name), self.ports(name)[0]
        image = self.world.store.images.get(instance.image_id)
        done = subprocess.run(
            [
                *login_command(
                    dhcp_namespace(port.network_id),
                    image.login_user,
                    port.addresses[0].address,
                    self.home / "instances" / instance.id / "known_hosts",
                    ["-i", str(self.home / "keys" / "default"), "-o", "BatchMode=yes"],
                ),
                command,
            ],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
        return done.stdout

    @cached_property
    def world(self) -> World:
        """The blocks, connected as the site's are."""
        return open_world(settings(), use_blocks=False)

    def instance(self, name: str) -> Instance:
        """A VM's record."""
        return self.world.store.instances.find(name)

    def vms(self) -> set[str]:
        """The ids of all tenants' VMs."""
        return {instance.id for instance in self.world.store.instances.list()}

    def build(self, name: str) -> Build:
        """A VM's build."""
        return self.world.store.builds.get(self.instance(name).id)

    def ports(self, name: str) -> list[Port]:
        """A VM's ports."""
        return self.world.store.ports.of_device(self.instance(name).id)

    def journal(self, build: Build) -> dict[int, Entry]:
        """A build's journal, by step."""
        entries = self.world.store.journal.entries(build.id, build.generation)
        return {entry.step: entry for entry in entries}

    def inventory(self) -> dict[str, list[str]]:
        """What is on the host and in the store now."""
        return host_inventory(self.home, self.world.store)

    def in_network(self, name: str, *words: str) -> str:
        """Run a program in the DHCP namespace of a VM's first network."""
        namespace = dhcp_namespace(self.ports(name)[0].network_id)
        done = subprocess.run(
            ["ip", "netns", "exec", namespace, *words], capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr
