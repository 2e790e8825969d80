"""How instances are plugged into networks, read for many instances at once."""

from __future__ import annotations

from ipaddress import IPv4Address

from pydantic import BaseModel, ConfigDict
from sqlalchemy import select

from blocks.resources import PortKind
from blocks.state.database import Database
from blocks.state.tables import AddressRow, NetworkRow, PortRow


class Plug(BaseModel):
    """One address of one instance port, as `fifty vm show` tells it.

    Attributes:
        network: The network's name, `network_id` its id.
        address: None until step 21 has chosen one.
        mac: None until step 19 has chosen it.
    """

    model_config = ConfigDict(frozen=True)

    network: str
    network_id: str
    address: str | None
    mac: str | None
    port_id: str
    tap: str | None


class Plugs:
    """The plugs of instances: one query, however many instances there are."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, instance_id: str) -> list[Plug]:
        """An instance's plugs, in the ports' order."""
        return self._read(instance_id).get(instance_id, [])

    def all(self) -> dict[str, list[Plug]]:
        """The plugs of every instance, by its id."""
        return self._read(None)

    def _read(self, instance_id: str | None) -> dict[str, list[Plug]]:
        query = (
            select(
                PortRow.device_id,
                PortRow.id,
                PortRow.mac,
                PortRow.tap,
                PortRow.network_id,
                NetworkRow.name,
                AddressRow.address,
            )
            .join(NetworkRow, NetworkRow.id == PortRow.network_id)
            .outerjoin(AddressRow, AddressRow.port_id == PortRow.id)
            .where(PortRow.kind == PortKind.COMPUTE)
            .order_by(PortRow.device_id, PortRow.index, AddressRow.address)
        )
        if instance_id is not None:
            query = query.where(PortRow.device_id == instance_id)
        found: dict[str, list[Plug]] = {}
        with self._database.read() as session:
            for device, port, mac, tap, network_id, network, number in session.execute(query):
                plug = Plug(
                    network=network,
                    network_id=network_id,
                    address=str(IPv4Address(number)) if number is not None else None,
                    mac=mac,
                    port_id=port,
                    tap=tap,
                )
                found.setdefault(str(device), []).append(plug)
        return found
