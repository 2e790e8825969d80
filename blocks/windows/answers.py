"""What an unattended installation of Windows has to be told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr, StringConstraints, field_validator

from blocks.resources.form import Form

#: Text that is shown and stored by Windows: no control characters, no markup of its own.
_Words = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f\"<>|:*?\\/]{1,63}$")]
_Locale = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8}){0,2}$")]
_Keyboard = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{4}:[0-9a-f]{8}$")]
_Release = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9.]{2,10}$")]
_TimeZone = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9 .()+-]{1,60}$")]
_ComputerName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,14}$")]
_ProductKey = Annotated[str, StringConstraints(pattern=r"^([A-Z0-9]{5}-){4}[A-Z0-9]{5}$")]
_Url = Annotated[str, StringConstraints(pattern=r"^https?://[A-Za-z0-9.:\[\]_-]+(/[!-~]*)?$")]
_SHORTEST_PASSWORD = 8


class WindowsChoices(Form):
    """The answers to what the installer of Windows asks, but for the password."""

    edition: Annotated[int, Field(ge=1, le=99)] | _Words = Field(
        title="Edition",
        description="Its name in the medium's `install.wim`, as `dism /Get-ImageInfo` tells it "
        "(`Windows Server 2022 SERVERSTANDARD`), or its number there, from 1.",
    )
    accept_license: Literal[True] = Field(
        title="License accepted",
        description="You accept Microsoft's terms; nothing is built without it.",
    )
    product_key: _ProductKey | None = Field(
        default=None,
        title="Product key",
        description="Also one of Microsoft's published KMS client keys; empty: the medium "
        "(evaluation, volume license) takes none. It stays readable in the run's parameters.",
    )
    drivers: _Release = Field(
        default="2k22",
        title="Drivers",
        description="The virtio-win medium's folder for this release: `2k22`, `w11`.",
    )
    firmware: Literal["uefi", "bios"] = Field(
        default="uefi", title="Firmware", description="`uefi` (GPT), or `bios` (MBR)."
    )
    owner: _Words = Field(
        default="Fifty Steps", title="Owner", description="Whom it is registered to."
    )
    language: _Locale = Field(
        default="en-US",
        title="Language",
        description="The medium's; the installer stops where it has not got it.",
    )
    locale: _Locale = Field(
        default="en-US", title="Locale", description="The form of dates and numbers."
    )
    keyboard: _Keyboard = Field(
        default="0409:00000409",
        title="Keyboard",
        description="Input locale and layout; 0409:00000409 is US English.",
    )
    time_zone: _TimeZone = Field(
        default="UTC", title="Time zone", description="As Windows calls it."
    )
    computer_name: _ComputerName | None = Field(
        default=None,
        title="Computer name",
        description="While it is built; empty: Windows chooses. Each VM gets its own anyway.",
    )
    updates: bool = Field(
        default=True, title="Updates", description="Install all updates before it is sealed."
    )
    update_server: _Url | None = Field(
        default=None, title="Update server", description="A WSUS; empty: Microsoft's."
    )
    zero_free: bool = Field(
        default=True,
        title="Zero free space",
        description="At the end, so that the image gets small.",
    )


class WindowsAnswers(WindowsChoices):
    """All answers to what the installer of Windows asks, and to what it does not ask.

    Attributes:
        password: The administrator's while the image is made. sysprep and the guest's
            cloudbase-init take its place; the medium that holds it is removed.
    """

    password: SecretStr = Field(title="Password", description="The administrator's.")

    @field_validator("password")
    @classmethod
    def _strong(cls, value: SecretStr) -> SecretStr:
        """What Windows' own policy asks for: else the installation stops in the middle."""
        held = value.get_secret_value()
        if not _SHORTEST_PASSWORD <= len(held) <= 127:
            raise ValueError(f"must have {_SHORTEST_PASSWORD} to 127 characters")
        if any(ord(char) < 32 or ord(char) == 127 or 0xD800 <= ord(char) < 0xE000 for char in held):
            raise ValueError("holds control characters")
        kinds = (str.isupper, str.islower, str.isdigit, lambda char: not char.isalnum())
        if sum(any(kind(char) for char in held) for kind in kinds) < 3:
            raise ValueError("needs three of: capitals, small letters, digits, other characters")
        return value
