"""What steps 4 to 8 look at beyond the form of the fields; nothing here changes anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from ipaddress import IPv4Address
from typing import Any

from blocks.errors import Conflict, FiftyError, InvalidRequest, NotFound, Unsupported
from blocks.images import ImageStore
from blocks.resources import Image
from blocks.resources.nics import nics_of
from blocks.settings import settings
from blocks.state import Build, Caller, StateStore
from blocks.user_data import kinds_in, wrong_for_guest
from tasks.certificate_policy import require_certificate
from tasks.draft import Draft
from tasks.image_passphrase import passphrase_of
from tasks.metadata import read_secret, vendor_data

GIB = 1024**3


@contextmanager
def about(name: str) -> Iterator[None]:
    """Tell which field of the request an error is about."""
    try:
        yield
    except FiftyError as error:
        raise type(error)(
            f"{name}: {error.message}", hint=error.hint, details=error.details
        ) from error


def check_fit(draft: Draft, store: StateStore, image: Image) -> None:
    """Check that an image fits the flavor that is asked for, where that one is known.

    Raises:
        InvalidRequest: It is larger, or needs more.
    """
    try:
        flavor = store.flavors.get(draft.valid("flavor") or "")
    except NotFound:
        return
    wrong = []
    if image.virtual_size_bytes > flavor.disk_gib * GIB:
        size = image.virtual_size_bytes / GIB
        wrong.append(f"it is {size:.2f} GiB, the flavor {flavor.name!r} has {flavor.disk_gib} GiB")
    if image.min_disk_gib > flavor.disk_gib:
        wrong.append(f"it needs {image.min_disk_gib} GiB of disk, {flavor.name!r} has less")
    if image.min_ram_mib > flavor.ram_mib:
        wrong.append(f"it needs {image.min_ram_mib} MiB of memory, {flavor.name!r} has less")
    if wrong:
        raise InvalidRequest("; ".join(wrong), hint="choose a larger flavor")


def usable_image(build: Build, caller: Caller, draft: Draft, store: StateStore, name: str) -> Image:
    """The image of a name, if a VM can be made of it as the request asks.

    Raises:
        NotFound: The caller can see none, or its passphrase is gone.
        Conflict: It is not active.
        Denied: It has no certificate, and the tenant's policy wants one.
        InvalidRequest: It does not fit the flavor, or its passphrase is none.
        Unsupported: Files cannot be injected into it.
    """
    image = store.images.find(caller.tenant_id, name)
    if image.status != "active":
        why = f": {image.deactivation.why}" if image.deactivation else ""
        raise Conflict(f"the image {name!r} is {image.status}{why}", hint="use an active image")
    require_certificate(build, caller, image, store)
    check_fit(draft, store, image)
    passphrase_of(image)
    if draft.valid("inject") and image.encrypted:
        raise Unsupported(f"files cannot be injected into {name!r}: it is encrypted")
    if draft.valid("inject") and not image.injectable:
        raise Unsupported(f"files cannot be injected into {name!r}: its root is not ext4")
    return image


def wrong_secret(draft: Draft) -> FiftyError | None:
    """What is wrong with the Secret block that holds the user data; None where nothing is."""
    name = draft.valid("user_data_secret")
    if name is None:
        return None
    try:
        with about("user_data_secret"):
            read_secret(name)
    except (NotFound, InvalidRequest) as error:
        return error
    return None


def valid_words(draft: Draft) -> str:
    """That a request is valid; and of what its user data is made, which is told nowhere else.

    Raises:
        InvalidRequest: The operator's vendor data is wrong: every guest is given it.
    """
    vendor_data(settings().vendor_data)
    text = draft.valid("user_data")
    if (secret := draft.valid("user_data_secret")) is not None:
        text = read_secret(secret)
    return f"valid; user data: {', '.join(kinds_in(text))}" if text else "valid"


def check_user_data_for(draft: Draft, image: Image, images: ImageStore) -> None:
    """Check that an image's cloud-init can use the user data, where it is known to have one.

    User data whose form is wrong, or that cannot be read, is step 4's.

    Raises:
        InvalidRequest: It cannot use all of it; nothing of it is quoted.
    """
    cloud_init = (image.report or {}).get("cloud_init")
    field, text = "user_data", draft.valid("user_data")
    if (secret := draft.valid("user_data_secret")) is not None:
        field, text = "user_data_secret", None if wrong_secret(draft) else read_secret(secret)
    if not cloud_init or not text:
        return
    wrong = [
        f"{field}: {line}" for line in wrong_for_guest(text, images.cloud_config_schema(image.id))
    ]
    if wrong:
        hint = f"the image {image.name!r} has cloud-init {cloud_init['version']}"
        raise InvalidRequest("; ".join(wrong), hint=hint, details=wrong if len(wrong) > 1 else ())


def usable_networks(caller: Caller, draft: Draft, store: StateStore) -> list[str]:
    """The ids of the networks asked for, each with an address that can be given.

    Raises:
        FiftyError: All that is wrong with them, in one.
    """
    found: list[str] = []
    wrong: list[FiftyError] = []
    asked: set[tuple[str, IPv4Address]] = set()
    for name, address in nics_of(draft.valid("networks"), draft.valid("fixed_ip")):
        try:
            network = store.networks.find(caller.tenant_id, name)
            if network.external:
                raise InvalidRequest(f"{name!r} is an external network: guests are not put there")
            subnets = store.networks.subnets(network.id)
            if not subnets:
                raise Conflict(f"{name!r} has no subnet")
            store.ports.check_address(subnets[0].id, address)
            if address is not None and (network.id, address) in asked:
                raise InvalidRequest(f"{address} of {name!r} is asked for twice")
            asked |= {(network.id, address)} if address is not None else set()
            found.append(network.id)
        except FiftyError as error:
            wrong.append(error)
    if wrong:
        kinds = {type(error) for error in wrong}
        kind = kinds.pop() if len(kinds) == 1 else InvalidRequest
        words = "; ".join(error.message for error in wrong)
        raise kind(f"networks: {words}", hint=wrong[0].hint)
    return found


def unknown_names(caller: Caller, draft: Draft, store: StateStore) -> list[str]:
    """The key pair, groups and VMs that are named and not there, a line each."""
    tenant = caller.tenant_id
    wrong: list[str] = []

    def look(find: Callable[[], Any], message: str) -> None:
        try:
            find()
        except NotFound:
            wrong.append(message)

    for name in draft.valid("security_groups") or ():
        message = f"security_groups: there is no security group {name!r}"
        look(partial(store.groups.find, tenant, name), message)
    for hint in ("same_host", "different_host"):
        for name in draft.valid(hint) or ():
            message = f"{hint}: there is no VM {name!r}"
            look(partial(store.instances.find, name, tenant), message)
    key = draft.valid("key")
    if key is not None and " " not in key:
        look(partial(store.keys.get, tenant, key), f"key: there is no key pair {key!r}")
    return wrong
