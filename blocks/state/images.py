"""Images in the state store."""

from __future__ import annotations

from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from blocks.errors import Conflict, NotFound
from blocks.resources import Image
from blocks.state.database import Database
from blocks.state.tables import BuildRow, ImageRow, InstanceRow

#: A name has 63 characters at most (`ResourceName`); nine of them tell retired ones apart.
_LONGEST_STEM = 54


class Images:
    """The image catalogue."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, image: Image, *, replaces: str | None = None) -> None:
        """Record an image, or a new state of it.

        Args:
            image: The image.
            replaces: The id of the one that gives its name to this one, in the same
                transaction: it is deactivated, keeps its file for the VMs that were made
                from it, and is called `NAME.ID` from then on.

        Raises:
            Conflict: Another image of the same owner has its name and version.
        """
        with self._database.write() as session:
            other = session.scalar(
                select(ImageRow).where(
                    ImageRow.tenant_id == image.tenant_id,
                    ImageRow.name == image.name,
                    ImageRow.version == image.version,
                )
            )
            if other is not None and other.id not in (image.id, replaces):
                raise Conflict(f"an image named {image.reference!r} is there already")
            if other is not None and other.id == replaces:
                _rename(session, other, retired_name(image.name, other.id), "deactivated")
                session.flush()  # before the new one: a name is one image's
            session.merge(
                ImageRow(
                    id=image.id,
                    tenant_id=image.tenant_id,
                    name=image.name,
                    version=image.version,
                    status=image.status,
                    document=image.model_dump(mode="json"),
                )
            )

    def withdraw(self, image_id: str, replaced: str | None) -> None:
        """Forget an image whose build is undone; the one that it replaced is active again.

        Args:
            image_id: The image; already gone is fine.
            replaced: The id of the one that it replaced.

        Raises:
            Conflict: A VM was made from it already.
        """
        with self._database.write() as session:
            _refuse_if_used(session, image_id)
            row = session.get(ImageRow, image_id)
            if row is None:
                return
            name = row.name
            session.delete(row)
            session.flush()
            old = session.get(ImageRow, replaced) if replaced else None
            if old is not None:
                _rename(session, old, name, "active")

    def forget_unused(self, image_id: str) -> bool:
        """Forget an image that another one replaced, unless a living instance was made from it.

        Returns:
            Whether it is forgotten.
        """
        with self._database.write() as session:
            row = session.get(ImageRow, image_id)
            # One that somebody withdrew may be let in again; one that was replaced may not.
            if row is None or row.status != "deactivated" or row.document.get("deactivation"):
                return False
            if _users(session, image_id):
                return False
            session.delete(row)
            build = session.get(BuildRow, image_id)
            if build is not None:
                build.state = "deleted"
            return True

    def get(self, image_id: str) -> Image:
        """An image by its id.

        Raises:
            NotFound: There is none.
        """
        with self._database.read() as session:
            row = session.get(ImageRow, image_id)
        if row is None:
            raise NotFound(f"there is no image with id {image_id}")
        return Image.model_validate(row.document)

    def change(self, image_id: str, **fields: Any) -> Image:  # noqa: ANN401 - as the fields are
        """Give an image other values, all of them or none.

        Args:
            image_id: The image.
            fields: Of `Image`, besides what tells it from others and where its file is.

        Returns:
            The image as it is now.

        Raises:
            NotFound: There is none.
        """
        with self._database.write() as session:
            row = session.get(ImageRow, image_id)
            if row is None:
                raise NotFound(f"there is no image with id {image_id}")
            before = Image.model_validate(row.document)
            after = Image.model_validate({**before.model_dump(), **fields})
            row.document = after.model_dump(mode="json")
            row.status = after.status
        return after

    def find(self, tenant_id: str, name: str) -> Image:
        """The tenant's image of that name, else one that others let it see.

        Args:
            tenant_id: Whose.
            name: A name, which means its newest active version, or `NAME:VERSION`.

        Raises:
            NotFound: The message lists what the tenant can see.
        """
        visible = self.list(tenant_id)
        found = [image for image in visible if name in (image.name, _in_full(image))]
        if found:
            # `list` has the newest first among those of one name; `min` takes the first.
            return min(found, key=lambda one: (one.tenant_id != tenant_id, one.status != "active"))
        known = ", ".join(sorted(image.reference for image in visible if image.status == "active"))
        raise NotFound(
            f"there is no image {name!r}; there are: {known or 'none'}",
            hint="`fifty image list` shows them"
            if known
            else "`fifty image build RECIPE` makes one",
        )

    def list(self, tenant_id: str | None) -> list[Image]:
        """The images that a tenant can see, by name, the newest first; with None all."""
        query = select(ImageRow).order_by(
            ImageRow.name, ImageRow.created_at.desc(), ImageRow.id.desc()
        )
        if tenant_id is not None:
            visibility = ImageRow.document["visibility"].as_string()
            query = query.where(
                or_(ImageRow.tenant_id == tenant_id, visibility.in_(("public", "shared")))
            )
        with self._database.read() as session:
            found = [Image.model_validate(row.document) for row in session.scalars(query)]
        return [image for image in found if tenant_id is None or _sees(tenant_id, image)]

    def refuse_if_used(self, image_id: str) -> None:
        """Check that no living instance was made from an image.

        Raises:
            Conflict: One was.
        """
        with self._database.read() as session:
            _refuse_if_used(session, image_id)

    def delete(self, image_id: str) -> None:
        """Forget an image."""
        with self._database.write() as session:
            row = session.get(ImageRow, image_id)
            if row is not None:
                session.delete(row)


def retired_name(name: str, image_id: str) -> str:
    """What an image is called once another one has its name."""
    return f"{name[:_LONGEST_STEM]}.{image_id[:8]}"


def _in_full(image: Image) -> str:
    return f"{image.name}:{image.version}"


def _sees(tenant_id: str, image: Image) -> bool:
    if tenant_id == image.tenant_id or image.visibility == "public":
        return True
    return image.visibility == "shared" and tenant_id in image.shared_with


def _rename(session: Session, row: ImageRow, name: str, status: str) -> None:
    row.name = name
    row.status = status
    row.document = {**row.document, "name": name, "status": status}
    build = session.get(BuildRow, row.id)
    if build is not None:
        build.name = name


def _users(session: Session, image_id: str) -> list[tuple[str, str]]:
    """The living instances that were made from an image: name and tenant's id."""
    users = select(InstanceRow.name, InstanceRow.tenant_id).where(
        InstanceRow.image_id == image_id, InstanceRow.live_name.is_not(None)
    )
    return [(name, tenant) for name, tenant in session.execute(users.order_by(InstanceRow.name))]


def _refuse_if_used(session: Session, image_id: str) -> None:
    users = _users(session, image_id)
    if not users:
        return
    image = session.get(ImageRow, image_id)
    owner = image.tenant_id if image is not None else None
    # A public image's owner is told how many others use it, not who they are.
    names = [name for name, tenant in users if tenant == owner]
    if others := len(users) - len(names):
        names.append(f"{others} VM(s) of other tenants")
    raise Conflict(f"the image is in use by {', '.join(names)}")
