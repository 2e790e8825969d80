"""Settings of Fifty Steps: environment variables with the prefix `FIFTY_`.

What `fifty init` was told is kept in `FIFTY_HOME/fifty.env`, so that the next command
needs no environment; a variable in the environment wins over the file.
"""

from __future__ import annotations

import os
import socket
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

DEFAULT_HOME = Path("/var/lib/fifty")


class Settings(BaseSettings):
    """All settings. Directories are derived from `home`.

    Attributes:
        home: Where everything lives that Fifty Steps keeps on this host.
        host: This host's name in the scheduler.
        credentials: The credentials block that commands use where none is named.
        prefect_api_url: The Prefect server's API, e.g. `http://127.0.0.1:4200/api`.
        prefect_auth: `USER:PASSWORD` for that API; made with the server that we start.
        builds: How many builds `fifty serve` runs at a time.
        lease_s: Seconds after which a build whose process gives no sign of life is free.
        accelerator: `auto` asks the machine; `kvm` or `tcg` insists.
        audit_grace: So many seconds an audit lets a thing be that nothing owns, before it
            removes it. As long as a dead process's lease, unless said otherwise.
        openvswitch: `system` uses the Open vSwitch that runs on this host, if one does;
            `own` has one started with our other daemons, where the system has none.
        openvswitch_directory: Where Open vSwitch's database listens, where it is neither
            the system's place nor ours.
        mirror: Debian mirror for image builds; none means the one of this host's apt.
        ubuntu_mirror: Ubuntu mirror for image builds; none means the one of this host's apt,
            or `/ubuntu` beside its Debian mirror, where that has it.
        image_limit_gib: The largest image that an import takes, also unpacked.
        import_networks: Networks that images may be fetched from although their addresses
            are not public, as a JSON list: `["10.1.0.0/16"]`.
        boot_wait_s: Seconds that step 47 waits for a guest's init; none means as long as
            its image says (`boot_timeout_s`), here and below.
        address_wait_s: Seconds that step 48 waits for a guest to answer on the network.
        ready_wait_s: Seconds that step 49 waits for each of SSH, login and the image's marker.
        underlay_ip: This host's address towards the other hosts, at which its tunnels end;
            none: this host is alone.
        vendor_data: A file with the operator's own user data: cloud-init in every guest does
            it too, before the user's, unless their user data switches that off.
        underlay_mtu: The MTU between the hosts; none means that of the interface with the
            underlay address, or 1500.
    """

    model_config = SettingsConfigDict(env_prefix="FIFTY_", extra="ignore")

    home: Path = DEFAULT_HOME
    host: str = Field(default_factory=lambda: socket.gethostname().split(".")[0])
    credentials: str = "default"
    prefect_api_url: str | None = None
    prefect_auth: SecretStr | None = None
    builds: int = Field(default=4, ge=1, le=1000)
    lease_s: float = Field(default=60.0, gt=0)
    accelerator: str = "auto"
    audit_grace: float = Field(default=60.0, ge=0.0)
    openvswitch: Literal["system", "own"] = "system"
    openvswitch_directory: Path | None = None
    mirror: str | None = None
    ubuntu_mirror: str | None = None
    image_limit_gib: float = Field(default=100.0, gt=0)
    import_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    boot_wait_s: float | None = Field(default=None, gt=0)
    address_wait_s: float | None = Field(default=None, gt=0)
    ready_wait_s: float | None = Field(default=None, gt=0)
    vendor_data: Path | None = None
    underlay_ip: IPv4Address | None = None
    underlay_mtu: int | None = Field(default=None, ge=1280, le=65535)

    @property
    def database(self) -> Path:
        """The state store's SQLite file."""
        return self.home / "state.db"

    @property
    def checkpoints(self) -> Path:
        """Where Prefect keeps the steps' results."""
        return self.home / "checkpoints"

    @property
    def images(self) -> Path:
        """The image catalogue's files; `images/cache` holds this host's bases."""
        return self.home / "images"

    @property
    def recipes(self) -> Path:
        """The site's own recipes, a folder each; made by the operator."""
        return self.home / "recipes"

    @property
    def instances(self) -> Path:
        """One directory an instance."""
        return self.home / "instances"

    @property
    def networks(self) -> Path:
        """One directory a network: dnsmasq's and the metadata service's files."""
        return self.home / "networks"

    @property
    def keys(self) -> Path:
        """Key pairs that `fifty init` made."""
        return self.home / "keys"


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read once.

    `fifty.env` holds a password and is root's; who may not read it is told so by the
    state store, which is root's too.
    """
    file = Path(os.environ.get("FIFTY_HOME", DEFAULT_HOME)) / "fifty.env"
    return Settings(_env_file=file if os.access(file, os.R_OK) else None)
