"""The state store's tables (SQLAlchemy 2); Alembic's migrations are made from them."""

from blocks.state.tables.base import Base, MetaRow
from blocks.state.tables.build import BuildRow, JournalRow, LeaseRow
from blocks.state.tables.compute import (
    ClaimRow,
    FlavorRow,
    HostRow,
    ImageRow,
    InstanceRow,
    VolumeRow,
)
from blocks.state.tables.identity import KeyPairRow, QuotaClaimRow, QuotaRow, TenantRow, TokenRow
from blocks.state.tables.network import (
    AddressRow,
    FloatingIpRow,
    NetworkRow,
    PortGroupRow,
    PortRow,
    RouterRow,
    SecurityGroupRow,
    SecurityGroupRuleRow,
    SegmentRow,
    SubnetRow,
)
from blocks.state.tables.snapshot import SnapshotRow

__all__ = [
    "AddressRow",
    "Base",
    "BuildRow",
    "ClaimRow",
    "FlavorRow",
    "FloatingIpRow",
    "HostRow",
    "ImageRow",
    "InstanceRow",
    "JournalRow",
    "KeyPairRow",
    "LeaseRow",
    "MetaRow",
    "NetworkRow",
    "PortGroupRow",
    "PortRow",
    "QuotaClaimRow",
    "QuotaRow",
    "RouterRow",
    "SecurityGroupRow",
    "SecurityGroupRuleRow",
    "SegmentRow",
    "SnapshotRow",
    "SubnetRow",
    "TenantRow",
    "TokenRow",
    "VolumeRow",
]
