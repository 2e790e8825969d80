"""What `fifty init` does: everything that must be there before the first VM.

All of it can be repeated: what is there, and right, is kept. Imports Prefect, so
`prefect_settings.prepare` comes first.
"""

from __future__ import annotations

from pathlib import Path

from prefect.blocks.core import Block
from pydantic import BaseModel

from blocks.credentials.block import FiftyCredentials
from blocks.errors import NotFound
from blocks.guest.key_files import make_key_pair
from blocks.hypervisor.block import LibvirtHostBlock
from blocks.loading import load_block
from blocks.scheduler_block import SchedulerBlock
from blocks.settings import Settings
from blocks.state import StateStore
from blocks.volumes import VolumePool
from blocks.world import BLOCK_NAME
from deployments import catalogue, daemons, defaults, prefect_settings, tenants
from deployments.registration import register

#: Directories of FIFTY_HOME. QEMU runs as a user of its own and must pass through those
#: in which disks lie; that is all it may do there.
_DIRECTORIES = {
    "images": 0o711,
    "instances": 0o711,
    "networks": 0o711,
    "volumes": 0o711,
    "checkpoints": 0o700,
    "keys": 0o700,
    "logs": 0o700,
}


class Site(BaseModel):
    """What `fifty init` has made sure of.

    Attributes:
        made: What was new, in words; empty when all was there.
    """

    home: str
    site: str
    host: str
    tenant: str
    tenant_id: str
    credentials: str
    api_url: str
    flavors: list[str]
    key_pair: str
    public_key: str
    private_key: str
    made: list[str]


def initialize(settings: Settings, api_url: str) -> Site:
    """Make a site, or complete one.

    Args:
        settings: Where.
        api_url: The Prefect server's API, which answers; kept in `fifty.env`, with its
            password.
    """
    made: list[str] = []
    _make_directories(settings.home, made)
    store = _make_store(settings, made)
    tenant, new = tenants.create_tenant(store, defaults.TENANT)
    if new:
        made.append(f"tenant {tenant.name}")
    for other in store.tenants.list():
        # A Prefect server that was made anew knows of no limit.
        tenants.limit_rate(other)
    _make_credentials(store, tenant.id, settings.credentials, made)
    known = {flavor.name for flavor in store.flavors.list()}
    for flavor in defaults.FLAVORS:
        # Not where it is there: an operator may have changed it.
        if flavor.name not in known:
            store.flavors.put(flavor)
            made.append(f"flavor {flavor.name}")
    VolumePool(settings.home / "volumes", store.site).prepare()
    public, private = make_key_pair(settings.keys, defaults.KEY_PAIR)
    store.keys.put(tenant.id, defaults.KEY_PAIR, public, str(private))
    for kind in (FiftyCredentials, LibvirtHostBlock, SchedulerBlock):
        # Also where there is a document: the UI's form is made from what is registered.
        kind.register_type_and_schema()
    for block in (LibvirtHostBlock(), SchedulerBlock()):
        _save_block(block, made)
    # Together: a password is sent to the server that it is kept with.
    daemons.write_environment(
        settings.home,
        {
            "FIFTY_PREFECT_API_URL": api_url,
            "FIFTY_PREFECT_AUTH": prefect_settings.auth(settings, api_url),
        },
    )
    made += register(settings)
    catalogue.write(settings.home, catalogue.from_tasks())
    return Site(
        home=str(settings.home),
        site=store.site,
        host=settings.host,
        tenant=tenant.name,
        tenant_id=tenant.id,
        credentials=settings.credentials,
        api_url=api_url,
        flavors=[flavor.name for flavor in store.flavors.list()],
        key_pair=defaults.KEY_PAIR,
        public_key=public,
        private_key=str(private),
        made=made,
    )


def _make_directories(home: Path, made: list[str]) -> None:
    daemons.prepare_home(home)
    for name, mode in _DIRECTORIES.items():
        directory = home / name
        if not directory.is_dir():
            directory.mkdir()
            directory.chmod(mode)  # whatever the umask is
            made.append(f"directory {directory}")


def _make_store(settings: Settings, made: list[str]) -> StateStore:
    if not settings.database.exists():
        # Before SQLite makes it: it holds the hashes of tokens, and its journal files
        # get the same mode.
        settings.database.touch(mode=0o600)
        made.append(f"state store {settings.database}")
    store = StateStore(settings.database, settings.host)
    store.initialize()
    return store


def _make_credentials(store: StateStore, tenant_id: str, name: str, made: list[str]) -> None:
    """See to a credentials block that stands for somebody: else with an admin's token."""
    try:
        token = load_block(FiftyCredentials, name).token.get_secret_value()
    except NotFound:
        token = None
    if token is not None and store.tenants.caller(token) is not None:
        store.tenants.note_credentials(token, name)
        return
    issued = store.tenants.issue_token(tenant_id, "admin")
    tenants.save_credentials(store, issued, name)
    made.append(f"credentials block {name}" + (", in place of an unknown one" if token else ""))


def _save_block(block: Block, made: list[str]) -> None:
    try:
        load_block(type(block), BLOCK_NAME)
    except NotFound:
        block.save(BLOCK_NAME)
        made.append(f"block {block.get_block_type_slug()}/{BLOCK_NAME}")
