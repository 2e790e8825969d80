"""What `fifty init` does: everything that must be there before the first VM.

All of it can be repeated: what is there, and right, is kept. Imports Prefect, so
`prefect_settings.prepare` comes first.
"""

from __future__ import annotations

from pathlib import Path

from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from pydantic import BaseModel

from blocks.credentials.block import FiftyCredentials
from blocks.errors import NotFound
from blocks.hypervisor.block import LibvirtHostBlock
from blocks.loading import load_block
from blocks.scheduler_block import SchedulerBlock
from blocks.settings import Settings
from blocks.state import StateStore
from blocks.volumes import VolumePool
from blocks.world import BLOCK_NAME
from deployments import catalogue, daemons, defaults
from deployments.keys import make_key_pair
from tasks.steps_01_11_api import rate_limit_name

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
        api_url: The Prefect server's API, which answers; kept in `fifty.env`.
    """
    made: list[str] = []
    _make_directories(settings.home, made)
    store = _make_store(settings, made)
    tenant_id = store.tenants.create(defaults.TENANT)
    rate = _make_credentials(store, tenant_id, settings.credentials, made)
    known = {flavor.name for flavor in store.flavors.list()}
    for flavor in defaults.FLAVORS:
        # Not where it is there: an operator may have changed it.
        if flavor.name not in known:
            store.flavors.put(flavor)
            made.append(f"flavor {flavor.name}")
    store.groups.ensure_default(tenant_id)
    VolumePool(settings.home / "volumes", store.site).prepare()
    public, private = make_key_pair(settings.keys, defaults.KEY_PAIR)
    store.keys.put(tenant_id, defaults.KEY_PAIR, public, str(private))
    for block in (LibvirtHostBlock(), SchedulerBlock()):
        _save_block(block, made)
    _limit_rate(defaults.TENANT, rate)
    daemons.write_environment(settings.home, {"FIFTY_PREFECT_API_URL": api_url})
    catalogue.write(settings.home, catalogue.from_tasks())
    return Site(
        home=str(settings.home),
        site=store.site,
        host=settings.host,
        tenant=defaults.TENANT,
        tenant_id=tenant_id,
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


def _make_credentials(store: StateStore, tenant_id: str, name: str, made: list[str]) -> int:
    """See to a credentials block with an admin's token; the tenant's requests a minute."""
    try:
        token = load_block(FiftyCredentials, name).token.get_secret_value()
    except NotFound:
        token = None
    caller = store.tenants.caller(token) if token else None
    if caller is None:
        issued = store.tenants.issue_token(tenant_id, "admin")
        FiftyCredentials.model_validate({"token": issued}).save(name, overwrite=True)
        made.append(f"credentials block {name}" + (", in place of an unknown one" if token else ""))
        caller = store.tenants.caller(issued)
    assert caller is not None  # noqa: S101 - it was issued above
    return caller.rate_per_minute


def _save_block(block: Block, made: list[str]) -> None:
    try:
        load_block(type(block), BLOCK_NAME)
    except NotFound:
        block.save(BLOCK_NAME)
        made.append(f"block {block.get_block_type_slug()}/{BLOCK_NAME}")


def _limit_rate(tenant: str, per_minute: int) -> None:
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(
            rate_limit_name(tenant), per_minute, slot_decay_per_second=per_minute / 60
        )
