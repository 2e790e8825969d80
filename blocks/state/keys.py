"""Key pairs in the state store."""

from __future__ import annotations

from sqlalchemy import select

from blocks.errors import Conflict, NotFound
from blocks.state.database import Database
from blocks.state.tables import KeyPairRow


class KeyPairs:
    """Named public keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, tenant_id: str, name: str, public_key: str, private_path: str | None) -> None:
        """Record a key pair; the same again is fine.

        Raises:
            Conflict: Another key has that name.
        """
        with self._database.write() as session:
            row = session.get(KeyPairRow, (tenant_id, name))
            if row is not None and row.public_key != public_key:
                raise Conflict(f"a different key pair named {name!r} is there already")
            session.merge(
                KeyPairRow(
                    tenant_id=tenant_id,
                    name=name,
                    public_key=public_key,
                    private_path=private_path,
                )
            )

    def get(self, tenant_id: str, name: str) -> tuple[str, str | None]:
        """A key pair's public key and, where it is a file here, the private one's path.

        Raises:
            NotFound: The tenant has none of that name.
        """
        with self._database.read() as session:
            row = session.get(KeyPairRow, (tenant_id, name))
        if row is None:
            raise NotFound(f"there is no key pair {name!r}")
        return row.public_key, row.private_path

    def list(self, tenant_id: str) -> list[tuple[str, str, str | None]]:
        """A tenant's key pairs by name: name, public key, the private one's path."""
        query = select(KeyPairRow).where(KeyPairRow.tenant_id == tenant_id)
        with self._database.read() as session:
            rows = session.scalars(query.order_by(KeyPairRow.name))
            return [(row.name, row.public_key, row.private_path) for row in rows]
