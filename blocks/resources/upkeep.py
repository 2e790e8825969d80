"""What the scheduled flows are asked for, and the user's own job in a VM."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints, field_validator

from blocks.resources.base import HostName, ResourceName
from blocks.resources.form import CredentialsName, Form
from blocks.resources.request import VmRequest

#: What a job's VM is called is this and a hyphen and eight hex digits.
JOB_NAME_LENGTH = 54
#: Linux takes 128 KiB in one argument; the guest's login shell gets the command as one.
COMMAND_LIMIT = 64 * 1024

JobName = Annotated[HostName, StringConstraints(max_length=JOB_NAME_LENGTH)]
Days = Annotated[float, Field(ge=0, le=3650, allow_inf_nan=False)]


class RefreshRequest(Form):
    """Which images are built anew."""

    older_than_days: Days = Field(
        default=7, title="Older than (days)", description="Built so long ago, or longer."
    )
    names: tuple[ResourceName, ...] | None = Field(
        default=None,
        title="Images",
        description="Only these; without any: all that a recipe built.",
    )
    credentials: CredentialsName = "default"


class CleanRequest(Form):
    """What is kept, and for how long."""

    bases_days: Days = Field(
        default=30,
        title="Bases (days)",
        description="Copies of images on this host that no VM is based on, since their last use.",
    )
    bases_gib: float = Field(
        default=100,
        ge=0,
        le=1_000_000,
        allow_inf_nan=False,
        title="Bases (GiB)",
        description="So much of these at most; those go first whose last use is longest ago.",
    )
    checkpoints_days: Days = Field(
        default=7,
        title="Checkpoints (days)",
        description="The steps' results of builds that are over.",
    )
    runs_days: Days = Field(
        default=2,
        title="Runs (days)",
        description="Runs of the scheduled upkeep; Prefect keeps other runs 90 days.",
    )


class StatsRequest(Form):
    """What is reported on."""

    last: int = Field(
        default=100, ge=1, le=100_000, title="Builds", description="So many, the last ones."
    )


class JobRequest(VmRequest):
    """The command, and the VM that is made for it and deleted afterwards."""

    first_fields: ClassVar[tuple[str, ...]] = ("name", "command", "timeout_s")

    name: JobName = Field(
        title="Name", description="Each run's VM is called so, with a number of the run's own."
    )
    command: (
        Annotated[str, Field(title="a line for the guest's shell")]
        | Annotated[tuple[str, ...], Field(title="a list of words, which no shell changes")]
    ) = Field(title="Command", description="What is run in the guest.")
    timeout_s: int = Field(
        default=3600,
        ge=1,
        le=7 * 24 * 3600,
        title="Timeout (seconds)",
        description="After that the command is given up.",
    )

    @field_validator("command")
    @classmethod
    def _command(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        words = (value,) if isinstance(value, str) else value
        if not "".join(words).strip():
            raise ValueError("there is nothing to run")
        if any("\0" in word for word in words):
            raise ValueError("holds a NUL, which no command line can")
        if sum(len(word.encode()) for word in words) > COMMAND_LIMIT:
            raise ValueError(f"is over the limit of {COMMAND_LIMIT} bytes")
        return value
