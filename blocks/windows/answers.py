"""What an unattended installation of Windows has to be told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr, StringConstraints, field_validator

from blocks.resources.base import Resource

#: Text that is shown and stored by Windows: no control characters, no markup of its own.
_Words = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f\"<>|:*?\\/]{1,63}$")]
_Locale = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8}){0,2}$")]
_Keyboard = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{4}:[0-9a-f]{8}$")]
_ProductKey = Annotated[str, StringConstraints(pattern=r"^([A-Z0-9]{5}-){4}[A-Z0-9]{5}$")]
_Url = Annotated[str, StringConstraints(pattern=r"^https?://[A-Za-z0-9.:\[\]_-]+(/[!-~]*)?$")]
_SHORTEST_PASSWORD = 8


class WindowsChoices(Resource):
    """The answers to what the installer of Windows asks, but for the password.

    Attributes:
        edition: The image's name in the medium's `install.wim`, as `dism /Get-ImageInfo`
            tells it (`Windows Server 2022 SERVERSTANDARD`), or its number from 1.
        accept_license: Microsoft's licence terms are accepted by who builds the image;
            nothing is built without it.
        product_key: A key (also one of Microsoft's published KMS client keys); none: the
            installer takes an evaluation or volume medium without one.
        drivers: The folder of the virtio-win medium for this release (`2k22`, `w11`).
        firmware: `uefi` (GPT, with EFI partition), or `bios` (MBR).
        owner: Whom the installation is registered to.
        language: The medium's language; the installer stops where it has not got it.
        locale: Formats of dates and numbers.
        keyboard: Input locale and layout, `0409:00000409` is US English.
        time_zone: A name of Windows' (`UTC`, `W. Europe Standard Time`).
        computer_name: None: Windows chooses one; each guest gets its own anyway.
        updates: Whether all updates are installed before the image is sealed.
        update_server: A WSUS to get them from; none: Microsoft's.
        zero_free: Whether free space is zeroed at the end, so that the image gets small.
    """

    edition: Annotated[int, Field(ge=1, le=99)] | _Words
    accept_license: Literal[True]
    product_key: _ProductKey | None = None
    drivers: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9.]{2,10}$")] = "2k22"
    firmware: Literal["uefi", "bios"] = "uefi"
    owner: _Words = "Fifty Steps"
    language: _Locale = "en-US"
    locale: _Locale = "en-US"
    keyboard: _Keyboard = "0409:00000409"
    time_zone: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9 .()+-]{1,60}$")] = "UTC"
    computer_name: (
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,14}$")] | None
    ) = None
    updates: bool = True
    update_server: _Url | None = None
    zero_free: bool = True


class WindowsAnswers(WindowsChoices):
    """All answers to what the installer of Windows asks, and to what it does not ask.

    Attributes:
        password: The administrator's while the image is made. sysprep and the guest's
            cloudbase-init take its place; the medium that holds it is removed.
    """

    password: SecretStr

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
