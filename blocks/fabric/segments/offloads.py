"""What a link leaves to the hardware (ethtool(8)), switched off where there is no hardware.

A guest leaves its checksums and the cutting of its TCP streams to whatever sends in the
end. Open vSwitch's userspace datapath sends packets as it reads them: what it reads must
be finished.
"""

from __future__ import annotations

from contextlib import closing

from pyroute2.ethtool.ioctl import IoctlEthtool

from blocks import changes

#: What the kernel then does itself before a packet leaves by the link; ethtool's short
#: names. In this order: segmentation needs checksums.
_OFFLOADS = {
    "tcp-segmentation-offload": "tso",
    "generic-segmentation-offload": "gso",
    "scatter-gather": "sg",
    "tx-checksumming": "tx",
}


def left_to_hardware(link: str) -> list[str]:
    """What a link of this namespace leaves to the hardware."""
    with closing(IoctlEthtool(link)) as ethtool:
        flags = ethtool.get_offload_flags()
    return [name for name in _OFFLOADS if flags[name]]


def finish_packets(link: str) -> None:
    """Have the kernel finish packets before they leave by a link."""
    left = left_to_hardware(link)
    if not left:
        return
    with closing(IoctlEthtool(link)) as ethtool:
        for name in left:
            ethtool.set_offload_flag(name, 0)
    words = [word for name in left for word in (_OFFLOADS[name], "off")]
    changes.record(f"Made {link} send finished packets", ["ethtool", "-K", link, *words])
