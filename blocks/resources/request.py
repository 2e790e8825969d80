"""What callers ask for: the flows' parameters, as the Prefect UI shows them in forms."""

from __future__ import annotations

import base64
import binascii
from ipaddress import IPv4Address
from pathlib import PurePosixPath
from typing import Annotated, Literal
from uuid import UUID

import yaml
from pydantic import Field, ValidationInfo, field_validator

from blocks.resources.base import HostName, Resource, ResourceName

#: Nova's limit for user data, before base64.
USER_DATA_LIMIT = 64 * 1024
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


def check_user_data(text: str) -> None:
    """Check what a guest is to be given as user data, without quoting any of it.

    Raises:
        ValueError: It is too long, or says that it is a cloud-config and is none.
    """
    if len(text.encode()) > USER_DATA_LIMIT:
        raise ValueError(f"is over the limit of {USER_DATA_LIMIT} bytes")
    if not text.startswith("#cloud-config"):
        return
    try:
        parsed = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ValueError(f"is not YAML after #cloud-config{where}") from error
    if parsed is not None and not isinstance(parsed, dict):
        raise ValueError("must be a YAML mapping after #cloud-config")


class InjectedFile(Resource):
    """A file that is put into the guest's disk before it boots (step 30)."""

    path: str = Field(description="absolute path in the guest", max_length=1024)
    content_base64: str = Field(description="the content, base64", max_length=INJECT_LIMIT * 2)
    mode: int = Field(default=0o644, ge=0, le=0o7777, description="permission bits")

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


class VmRequest(Resource):
    """A virtual machine that is wanted: `create-vm`'s parameter."""

    name: HostName
    image: ResourceName
    flavor: ResourceName = "tiny"
    networks: tuple[ResourceName, ...] = Field(
        min_length=1, max_length=8, description="one port in each, in this order"
    )
    key: str | None = Field(
        default=None,
        max_length=16 * 1024,
        description="the name of a key pair, or an OpenSSH public key",
    )
    user_data: str | None = Field(default=None, description="for cloud-init; 64 KiB at most")
    user_data_secret: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9-]{1,63}$",
        description="instead: the name of a Prefect Secret block that holds the user data",
    )
    inject: tuple[InjectedFile, ...] = Field(default=(), max_length=INJECT_FILES)
    volumes: tuple[Annotated[int, Field(ge=1, le=16384)], ...] = Field(
        default=(), max_length=16, description="data volumes, GiB each"
    )
    security_groups: tuple[ResourceName, ...] = ("default",)
    fixed_ip: IPv4Address | None = Field(default=None, description="on the first network")
    floating: bool = Field(default=False, description="also a floating IP")
    zone: ResourceName | None = None
    host: str | None = Field(default=None, max_length=63, description="force a host (admin only)")
    same_host: tuple[HostName, ...] = Field(default=(), description="beside these VMs")
    different_host: tuple[HostName, ...] = Field(default=(), description="not beside these VMs")
    on_failure: Literal["rollback", "keep"] = Field(
        default="rollback", description="a step fails: undo everything, or keep it for a look"
    )
    on_interrupt: Literal["resume", "rollback"] = Field(
        default="resume", description="the process is killed: go on with it, or undo it"
    )
    request_id: str | None = Field(
        default=None, max_length=128, pattern=r"^[\x21-\x7e]+$", description="idempotency key"
    )
    credentials: str = Field(
        default="default", pattern=r"^[a-z0-9-]{1,63}$", description="name of a credentials block"
    )

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


#: The credentials block of a request that is about something by its name.
CredentialsName = Annotated[
    str, Field(pattern=r"^[a-z0-9-]{1,63}$", description="name of a credentials block")
]


class VmReference(Resource):
    """A VM that is there: `delete-vm`'s, `resume-vm`'s and `rollback-vm`'s parameter."""

    name: str = Field(max_length=63, description="the VM's name, or its id")
    credentials: CredentialsName = "default"


class NamedRequest(Resource):
    """Something that is there, by its name: `delete-network`'s parameter."""

    name: ResourceName
    credentials: CredentialsName = "default"


class RouterRequest(Resource):
    """A change to a router: `change-router`'s parameter."""

    action: Literal["create", "add-interface", "set-gateway", "clear-gateway", "delete"]
    name: ResourceName
    network: ResourceName | None = Field(
        default=None, description="for add-interface and set-gateway"
    )
    credentials: CredentialsName = "default"


class BuildReference(Resource):
    """A build that stopped: `finish-build`'s parameter."""

    id: UUID = Field(description="the build's id, which is that of the thing it builds")
    name: str = Field(default="", max_length=63, description="its name, for the run's name only")


class ReconcileRequest(Resource):
    """How stopped builds are brought to an end: `reconcile`'s parameter."""

    dispatch: bool = Field(
        default=False,
        description="make a run of finish-build/fifty for each, instead of doing it here",
    )


class NetworkRequest(Resource):
    """A network that is wanted: `create-network`'s parameter."""

    name: ResourceName
    cidr: str = Field(description="IPv4, e.g. 192.168.0.0/24")
    type: Literal["flat", "local", "vxlan"] = "vxlan"
    segment: int | None = Field(default=None, ge=1, le=2**24 - 1, description="the VNI")
    gateway: IPv4Address | None = Field(default=None, description="default: the first address")
    dns: tuple[IPv4Address, ...] = Field(default=(), max_length=6)
    pool: str | None = Field(default=None, description="FIRST-LAST; default: all addresses")
    dhcp: bool = True
    external: bool = Field(default=False, description="a network outside; admin only")
    outside: Literal["closed", "uplink", "bridge"] = Field(
        default="closed", description="what an external network leads to"
    )
    physical_bridge: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9._-]{1,15}$", description="flat: an existing bridge"
    )
    router: ResourceName | None = Field(
        default=None, description="attach to this router, which is made if it is not there"
    )
    external_network: ResourceName | None = Field(
        default=None, description="give that router its gateway in this network"
    )
    credentials: CredentialsName = "default"


class ImageRequest(Resource):
    """An image that is wanted: `build-image`'s parameter."""

    recipe: ResourceName
    name: ResourceName | None = Field(default=None, description="default: the recipe's name")
    rebuild: bool = Field(
        default=False, description="also if it is there already: it is replaced by the new one"
    )
    credentials: CredentialsName = "default"
