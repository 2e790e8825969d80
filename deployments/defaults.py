"""What `fifty init` makes, and what commands use where nothing is named."""

from __future__ import annotations

from blocks.resources import Flavor

TENANT = "default"
KEY_PAIR = "default"

FLAVORS = (
    Flavor(name="tiny", vcpus=1, ram_mib=256, disk_gib=1),
    Flavor(name="small", vcpus=1, ram_mib=512, disk_gib=5),
    Flavor(name="medium", vcpus=2, ram_mib=2048, disk_gib=20),
)
