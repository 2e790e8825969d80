"""Data volumes: qcow2 files in a directory of this host."""

from blocks.volumes.pool import VolumeAttachment, VolumePool

__all__ = ["VolumeAttachment", "VolumePool"]
