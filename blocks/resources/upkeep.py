"""What the scheduled flows are asked for, and the user's own job in a VM."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints, field_validator

from blocks.resources.base import HostName, Resource, ResourceName
from blocks.resources.request import CredentialsName, VmRequest

#: What a job's VM is called is this and a hyphen and eight hex digits.
JOB_NAME_LENGTH = 54
#: Linux takes 128 KiB in one argument; the guest's login shell gets the command as one.
COMMAND_LIMIT = 64 * 1024

JobName = Annotated[
    HostName,
    StringConstraints(max_length=JOB_NAME_LENGTH),
    Field(description="each run's VM is called so, and a number of the run's own"),
]
Days = Annotated[float, Field(ge=0, le=3650, allow_inf_nan=False)]


class RefreshRequest(Resource):
    """Which images are built anew: `refresh-images`' parameter."""

    older_than_days: Days = Field(default=7, description="built so long ago or longer")
    names: tuple[ResourceName, ...] | None = Field(
        default=None, description="only these; default: all that a recipe built"
    )
    credentials: CredentialsName = "default"


class CleanRequest(Resource):
    """What is kept, and for how long: `clean-cache`'s parameter."""

    checkpoints_days: Days = Field(
        default=7, description="the steps' results of builds that are over"
    )
    runs_days: Days = Field(
        default=2, description="runs of the scheduled upkeep; other runs Prefect keeps 90 days"
    )


class StatsRequest(Resource):
    """What is reported on: `report-stats`' parameter."""

    last: int = Field(default=100, ge=1, le=100_000, description="so many builds, the last ones")


class JobRequest(VmRequest):
    """A VM for one command, which is deleted afterwards: `run-in-vm`'s parameter."""

    name: JobName
    command: str | tuple[str, ...] = Field(
        description="a line for the guest's shell, or a list of words, which no shell changes"
    )
    timeout_s: int = Field(
        default=3600, ge=1, le=7 * 24 * 3600, description="then the command is given up"
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
