"""The import of an image: its steps, beside those of a build in the images' catalogue."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import urlsplit

from blocks.errors import Conflict, InvalidRequest
from blocks.images import ImageStore
from blocks.images.intake.checksums import SUMS
from blocks.images.intake.outcome import ImportedImage, Inspected
from blocks.images.intake.reach import require_fetchable
from blocks.resources import Image, ImageFormat, ImportRequest, SourceFormat
from blocks.state import Build, Caller, StateStore
from blocks.state.tables.base import now
from tasks.access import admitted
from tasks.draft import describe_all
from tasks.image_build import forget_image, remove_file, step
from tasks.image_names import named
from tasks.image_passphrase import read_passphrase
from tasks.policy import check_policy
from tasks.step_progress import telling

_GIB = 1024**3


@step(11, "Validate the import request")
def validate_import(build: Build, form: dict[str, Any], store: StateStore) -> str:
    """Look at the whole request: the caller, the source, and that the name is free.

    A file of the host is an admin's to import: as root one can read any. Here Glance has its
    import methods (`glance-direct`, `web-download`), and `web-download`'s allowed hosts.
    """
    caller = admitted(build, store, "image:import")
    wrong = describe_all(ImportRequest, form)
    if wrong:
        raise InvalidRequest("the import request is wrong", details=wrong)
    request = ImportRequest.model_validate(form)
    if request.is_url:
        require_fetchable(request.source)
    else:
        check_policy(caller, "image:import:file")
    if request.visibility == "public":
        check_policy(caller, "image:create:public")
    if request.passphrase_secret is not None:
        read_passphrase(request.passphrase_secret)
    if named(build, store, caller, request.name, request.version):
        raise Conflict(
            f"an image named {request.reference!r} is there already",
            hint="give the new one another --version, or another name",
        )
    store.builds.update(build.id, name=request.reference)
    return request.reference


@step(12, "Fetch the image", undo=remove_file)
def fetch_image(build: Build, import_request: ImportRequest, images: ImageStore) -> str | None:
    """Have the source in a directory of the image's own, its checksum compared.

    A download that broke off goes on where it stopped; a file of this host is read where it
    lies, and must not change before the image is there. Here Glance runs the task
    `WebDownload` (`glance.async_.flows._internal_plugins.web_download`).
    """
    request = import_request
    expected = SUMS if request.sha256sums else request.sha256
    with telling("fetching", build.name) as meter:
        return images.intake.fetch(request.source, build.id, expected, meter.bytes)


@step(13, "Inspect the image")
def inspect_image(
    build: Build, import_request: ImportRequest, images: ImageStore, store: StateStore
) -> dict[str, Any]:
    """Unpack it, and look whether it is what it is said to be, and keeps to itself.

    Until then no other program has opened it. Here Nova and Glance have
    `oslo_utils.imageutils.format_inspector`, since CVE-2024-32498.
    """
    request = import_request
    declared = SourceFormat(request.format) if request.format else None
    encrypted = request.encrypted
    with telling("unpacking", build.name) as meter:
        seen = images.intake.inspect(build.id, declared, meter.bytes, encrypted=encrypted)
    document = seen.model_dump(mode="json")
    store.builds.note(build.id, inspected=document)
    return document


@step(14, "Convert the image")
def convert_image(
    build: Build, import_request: ImportRequest, images: ImageStore, store: StateStore
) -> dict[str, Any]:
    """Put it into the store in the catalogue's format, inspected as what it is now.

    Here Glance runs its plugin `image_conversion`. What QEMU reads here it reads under limits,
    without network, and with no other file in reach.
    """
    inspected = Inspected.model_validate(build.plan["inspected"])
    request = import_request
    target = ImageFormat(request.to)
    secret = request.passphrase_secret
    with telling("converting", build.name) as meter:
        made = images.intake.convert(
            build.id,
            inspected,
            target,
            meter.bytes,
            compressed=request.compress,
            passphrase=read_passphrase(secret) if secret is not None else None,
        )
    document = made.model_dump(mode="json")
    store.builds.note(build.id, imported=document)
    return document


@step(15, "Record the imported image", undo=forget_image)
def record_import(
    build: Build, caller: Caller, import_request: ImportRequest, store: StateStore
) -> str:
    """Record the image in the catalogue, with checksum and sizes: it is active now."""
    made = ImportedImage.model_validate(build.plan["imported"])
    request = import_request
    store.images.put(
        Image(
            **made.model_dump(mode="json"),
            id=build.id,
            tenant_id=caller.tenant_id,
            name=request.name,
            version=request.version,
            passphrase_secret=request.passphrase_secret,
            visibility=request.visibility,
            min_disk_gib=max(request.min_disk_gib, math.ceil(made.virtual_size_bytes / _GIB)),
            min_ram_mib=request.min_ram_mib,
            os=request.os,
            login_user=request.login_user,
            properties=request.properties,
            # No firm word on its file system: step 30 would have to guess.
            injectable=False,
            source=in_words(request.source),
            built_at=now(),
        )
    )
    return build.id


def in_words(source: str) -> str:
    """A source without what may be a secret in it: a signed URL's query."""
    if "://" not in source:
        return source
    parts = urlsplit(source)
    return parts._replace(query="", fragment="").geturl()
