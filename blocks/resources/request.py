"""A virtual machine that is wanted: the parameter of `create-vm`, as the Prefect UI shows it."""

from __future__ import annotations

import base64
import binascii
from ipaddress import IPv4Address
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from blocks.resources.address_forms import Address
from blocks.resources.base import HostName, ImageReference, ResourceName
from blocks.resources.form import CredentialsName, FileMode, Form
from blocks.resources.nics import NetworkChoice, Nic, nics_of, parse_nic
from blocks.user_data import check_user_data

#: For all injected files together: Prefect takes 512 KiB of parameters at most, in which
#: they are base64, beside the user data.
INJECT_LIMIT = 256 * 1024
INJECT_FILES = 16

KEY_TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
)


class InjectedFile(Form):
    """A file that is put into the guest's disk before it boots (step 30)."""

    path: str = Field(title="Path", description="Absolute, in the guest.", max_length=1024)
    content_base64: str = Field(
        title="Content",
        description="The file's content in base64. It stays readable in the run's parameters.",
        max_length=INJECT_LIMIT * 2,
    )
    mode: FileMode = Field(
        default=0o644,
        title="Mode",
        description="As `chmod` takes it.",
        json_schema_extra={"default": "0644"},
    )

    @field_validator("path")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if any(ord(char) < 32 or ord(char) == 127 for char in value):
            raise ValueError("a path holds no control characters")
        path = PurePosixPath(value)
        if not path.is_absolute() or ".." in path.parts or value.endswith("/"):
            raise ValueError("must be an absolute path of a file, without '..'")
        return str(path)

    @field_validator("content_base64")
    @classmethod
    def _decodes(cls, value: str) -> str:
        try:
            content = base64.b64decode(value, validate=True)
        except binascii.Error as error:
            raise ValueError("is not base64") from error
        if len(content) > INJECT_LIMIT:
            raise ValueError(f"is over the limit of {INJECT_LIMIT} bytes")
        return value

    @property
    def content(self) -> bytes:
        """The file's bytes."""
        return base64.b64decode(self.content_base64)


class VmRequest(Form):
    """The virtual machine that is wanted."""

    name: HostName = Field(
        title="Name",
        description="The guest's host name: lower-case letters, digits and hyphens, 63 at most.",
    )
    image: ImageReference = Field(
        title="Image",
        description="What its disk begins as, such as `micro` (`fifty image list`), or "
        "`NAME:VERSION`.",
    )
    flavor: ResourceName = Field(
        default="tiny",
        title="Flavor",
        description="Its size: `tiny` (1 CPU, 256 MiB, 1 GiB disk), `small` (1, 512 MiB, 5 GiB), "
        "`medium` (2, 2 GiB, 20 GiB), or one of your own.",
    )
    networks: tuple[NetworkChoice, ...] = Field(
        min_length=1,
        max_length=8,
        title="Networks",
        description="Their names (`fifty network list`), or `NAME:ADDRESS` to choose its address "
        "there: an interface for each, in this order.",
    )
    fixed_ip: Address | None = Field(
        default=None,
        title="Fixed IP",
        description="Its IPv4 address in the first network, where that is given without one; "
        "empty: the next free one.",
    )
    volumes: tuple[Annotated[int, Field(ge=1, le=16384)], ...] = Field(
        default=(), max_length=16, title="Volumes", description="Further disks, GiB each."
    )
    key: str | None = Field(
        default=None,
        max_length=16 * 1024,
        title="SSH key",
        description="Who may log in: the name of a key pair, or an OpenSSH public key; empty: "
        "nobody.",
        # As `fifty vm create` has it, and `fifty vm ssh` needs it.
        json_schema_extra={"default": "default"},
    )
    security_groups: tuple[ResourceName, ...] = Field(
        default=("default",), title="Security groups", description="What may reach its ports."
    )
    user_data: str | None = Field(
        default=None,
        title="User data",
        description="For cloud-init: `#cloud-config`, a script, a multi-part message and so on, "
        "64 KiB at most. It stays readable in the run's parameters: secrets go into a block, "
        "see the next field.",
    )
    user_data_secret: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9-]{1,63}$",
        title="User data from a secret",
        description="Instead: the name of a Prefect Secret block that holds the user data.",
    )
    inject: tuple[InjectedFile, ...] = Field(
        default=(),
        max_length=INJECT_FILES,
        title="Files",
        description="Put into its disk before it boots; 256 KiB in all.",
    )
    on_failure: Literal["rollback", "keep"] = Field(
        default="rollback",
        title="When a step fails",
        description="`rollback` undoes everything; `keep` leaves all as it is, for a look, and "
        "for Retry.",
    )
    on_interrupt: Literal["resume", "rollback"] = Field(
        default="resume",
        title="When its process is killed",
        description="`resume` goes on with the build at the step where it stopped; `rollback` "
        "undoes it.",
    )
    host: str | None = Field(
        default=None,
        max_length=63,
        title="Host",
        description="Force this host (admins only); empty: the scheduler chooses.",
    )
    zone: ResourceName | None = Field(
        default=None, title="Zone", description="Only hosts of this availability zone."
    )
    same_host: tuple[HostName, ...] = Field(
        default=(), title="Same host as", description="On the host of these VMs."
    )
    different_host: tuple[HostName, ...] = Field(
        default=(), title="Other host than", description="Not on a host of these VMs."
    )
    floating: bool = Field(
        default=False,
        title="Floating IP",
        description="Also an address outside that leads to it.",
    )
    request_id: str | None = Field(
        default=None,
        max_length=128,
        pattern=r"^[\x21-\x7e]+$",
        title="Request id",
        description="The same id again is the same VM, not another one; empty: a new one.",
    )
    credentials: CredentialsName = "default"

    @property
    def nics(self) -> tuple[Nic, ...]:
        """Its interfaces in order, each with its network and the address wanted there."""
        return nics_of(self.networks, self.fixed_ip)

    @field_validator("fixed_ip")
    @classmethod
    def _once(cls, value: IPv4Address | None, info: ValidationInfo) -> IPv4Address | None:
        first = next(iter(info.data.get("networks") or ()), None)
        if value is not None and first is not None and parse_nic(first).address is not None:
            raise ValueError(f"is given beside {first!r}; only one of them can be")
        return value

    @field_validator("key")
    @classmethod
    def _key(cls, value: str | None) -> str | None:
        if value is None or " " not in value.strip():
            return value
        kind, blob = value.split()[:2]
        if "\n" in value.strip() or "\x00" in value:
            raise ValueError("is more than one line")
        if kind not in KEY_TYPES:
            raise ValueError(f"is of type {kind!r}; known are {', '.join(KEY_TYPES)}")
        try:
            base64.b64decode(blob, validate=True)
        except binascii.Error as error:
            raise ValueError("is not an OpenSSH public key") from error
        return value.strip()

    @field_validator("user_data")
    @classmethod
    def _user_data(cls, value: str | None) -> str | None:
        if value is not None:
            check_user_data(value)
        return value

    @field_validator("user_data_secret")
    @classmethod
    def _instead(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("user_data") is not None:
            raise ValueError("is given beside user_data; only one of them can be")
        return value

    @field_validator("inject")
    @classmethod
    def _inject(cls, value: tuple[InjectedFile, ...]) -> tuple[InjectedFile, ...]:
        if sum(len(file.content) for file in value) > INJECT_LIMIT:
            raise ValueError(f"all files together are over the limit of {INJECT_LIMIT} bytes")
        if len({file.path for file in value}) != len(value):
            raise ValueError("names a path twice")
        return value
