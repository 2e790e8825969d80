"""An image that is wanted from an installer's medium: the parameter of `install-image`.

Not among those that `blocks.resources` gives out: Windows' answers are a part of it, whose
package needs the resources first.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from blocks.resources.base import HostName
from blocks.resources.form import CredentialsName, Form
from blocks.windows.answers import WindowsChoices

_ANSWERS_LIMIT = 256 * 1024


def _of_host(path: str) -> str:
    pure = PurePosixPath(path)
    if not pure.is_absolute() or ".." in pure.parts or any(ord(char) < 32 for char in path):
        raise ValueError("must be the absolute path of a file on the host, without '..'")
    return str(pure)


HostFile = Annotated[str, Field(max_length=1024), AfterValidator(_of_host)]


class AnswerFile(Form):
    """A file that the installer looks for on a second medium."""

    path: str = Field(
        title="Path",
        pattern=r"^[A-Za-z0-9_.-]{1,64}(/[A-Za-z0-9_.-]{1,64}){0,5}$",
        description="In the medium, such as `user-data` or `ks.cfg`.",
    )
    content: str = Field(title="Content", max_length=_ANSWERS_LIMIT, description="The file's text.")

    @field_validator("path")
    @classmethod
    def _inside(cls, value: str) -> str:
        if ".." in value.split("/") or "." in value.split("/"):
            raise ValueError("must not hold '.' or '..'")
        return value


class WindowsForm(WindowsChoices):
    """What an installer of Windows is told, and the media that the operator has fetched."""

    first_fields: ClassVar[tuple[str, ...]] = ("edition", "accept_license", "password_secret")

    password_secret: str = Field(
        title="Password from a secret",
        pattern=r"^[a-z0-9-]{1,63}$",
        description="The Prefect Secret block with the administrator's password.",
    )
    virtio_win: HostFile = Field(
        title="virtio-win", description="The ISO file `virtio-win.iso`, its path on the host."
    )
    programs: dict[str, HostFile] = Field(
        default_factory=dict,
        max_length=16,
        title="Programs",
        description="Files of the host by what they are: `cloudbase-init.msi` (needed), "
        "`openssh.msi`, `sdelete64.exe`, `qemu-ga-x86_64.msi`.",
    )


class InstallRequest(Form):
    """The image that is to be installed."""

    first_fields: ClassVar[tuple[str, ...]] = ("name", "medium", "answers", "windows")

    name: HostName = Field(title="Name", description="What the image is called.")
    medium: HostFile = Field(
        title="Medium", description="The installer's ISO file, its absolute path on the host."
    )
    answers: tuple[AnswerFile, ...] = Field(
        default=(),
        max_length=16,
        title="Answers",
        description="Files of a second medium: `user-data` and `meta-data` (autoinstall), "
        "`ks.cfg` (kickstart), `preseed.cfg`. They stay readable in the run's parameters.",
    )
    answers_label: str = Field(
        default="cidata",
        pattern=r"^[A-Za-z0-9_-]{1,16}$",
        title="Label of that medium",
        description="`cidata` for autoinstall, `OEMDRV` for kickstart.",
    )
    windows: WindowsForm | None = Field(
        default=None, title="Windows", description="For an installer of Windows, instead."
    )
    disk_gib: int = Field(default=10, ge=1, le=2048, title="Disk", description="GiB.")
    vcpus: int = Field(default=2, ge=1, le=64, title="Processors", description="Of its machine.")
    ram_mib: int = Field(default=2048, ge=64, le=1024**2, title="Memory", description="MiB.")
    firmware: Literal["bios", "uefi"] = Field(
        default="bios", title="Firmware", description="Of Windows, what its answers say."
    )
    virtio: bool = Field(
        default=True, title="virtio disks", description="The installer knows virtio's disks."
    )
    timeout_min: int = Field(
        default=180, ge=1, le=24 * 60, title="Time limit", description="Minutes, for all of it."
    )
    login_user: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,31}$",
        title="Login user",
        description="Who one logs in as with the key; empty: root, or Windows' Administrator.",
    )
    credentials: CredentialsName = "default"

    @model_validator(mode="after")
    def _one_kind(self) -> InstallRequest:
        if self.windows is not None and self.answers:
            raise ValueError("answers and windows are given; only one of them can be")
        if sum(len(file.content.encode()) for file in self.answers) > _ANSWERS_LIMIT:
            raise ValueError(f"all answers together are over {_ANSWERS_LIMIT} bytes")
        return self

    @property
    def system(self) -> Literal["linux", "windows"]:
        """Whose installer it is."""
        return "windows" if self.windows is not None else "linux"

    @property
    def machine_firmware(self) -> Literal["bios", "uefi"]:
        """What the machine starts with."""
        return self.windows.firmware if self.windows is not None else self.firmware

    @property
    def host_files(self) -> tuple[str, ...]:
        """The files of the host that are read."""
        if self.windows is None:
            return (self.medium,)
        return (self.medium, self.windows.virtio_win, *self.windows.programs.values())
