"""The Prefect block that tells the scheduler what to prefer."""

from __future__ import annotations

from prefect.blocks.core import Block
from pydantic import Field

from blocks.block_pages import documentation_url, logo_url


class SchedulerBlock(Block):
    """Multipliers of the scheduler's weighers (Nova's `*_weight_multiplier`).

    Example:
        What the scheduler of a site prefers:
        ```python
        from blocks.scheduler_block import SchedulerBlock

        preferences = SchedulerBlock.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Fifty Scheduler"
    _block_type_slug = "fifty-scheduler"
    _description = "What the scheduler of Fifty Steps prefers."
    _logo_url = logo_url()
    _documentation_url = documentation_url()

    ram: float = Field(default=1.0, description="Free memory; negative stacks.")
    cpu: float = Field(default=1.0, description="Free processors.")
    load_average: float = Field(default=-1.0, description="Load; negative avoids it.")
    failures: float = Field(default=-10.0, description="Builds that failed there of late.")
    alternates: int = Field(default=2, ge=0, le=10, description="Hosts to try after the first.")
