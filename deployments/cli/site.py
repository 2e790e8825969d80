"""`fifty init` and `steps`: this site as a whole."""

from __future__ import annotations

import os
import textwrap
from typing import Annotated

from cyclopts import Parameter

from blocks.errors import NotFound
from blocks.settings import settings
from deployments import catalogue, prefect_settings
from deployments.cli import output
from deployments.cli.context import Json, require_root
from deployments.cli.glyphs import STAGES


def init(*, api_url: str | None = None, json: Json = False) -> None:
    """Make what must be there before the first VM; what is there already is kept.

    That is the state store, the tenant default with its token (in a Prefect block), the
    flavors, a security group, a key pair, and on the Prefect server the blocks, the rate
    limit, the work pool and the deployments.

    Args:
        api_url: The Prefect server's API, such as http://127.0.0.1:4200/api; remembered, as
            is its password, FIFTY_PREFECT_AUTH=USER:PASSWORD.
    """
    require_root("fifty init")
    if api_url is not None:
        os.environ["PREFECT_API_URL"] = api_url.rstrip("/")
    url = prefect_settings.prepare(settings(), console=False)
    prefect_settings.require_answer(url)
    # After prepare(): it imports Prefect.
    from deployments.setup import initialize

    site = initialize(settings(), url)
    if json:
        output.document(site.model_dump())
        return
    for line in site.made:
        output.note(f"made: {output.plain(line)}")
    output.facts(
        (
            ("home", site.home),
            ("site", site.site),
            ("host", site.host),
            ("tenant", site.tenant),
            ("credentials", site.credentials),
            ("Prefect", site.api_url),
            ("flavors", ", ".join(site.flavors)),
            ("key pair", f"{site.key_pair} ({site.private_key})"),
        )
    )


def steps(
    number: Annotated[int | None, Parameter(show_default=False)] = None,
    /,
    *,
    json: Json = False,
) -> None:
    """Tell the catalogue of the fifty steps, or all about one of them.

    Args:
        number: Only this step.
    """
    os.environ.setdefault("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", "false")
    catalogues = catalogue.from_tasks()
    if settings().database.exists() and os.access(settings().home, os.W_OK):
        catalogue.write(settings().home, catalogues)
    found = [step for step in catalogues["vm"] if number in (None, step.number)]
    if not found:
        raise NotFound(f"there is no step {number}", hint="`fifty steps` shows them all")
    if json:
        output.document([step.model_dump() for step in found])
        return
    if number is not None:
        _tell(found[0])
        return
    stage = None
    for step in found:
        if step.stage != stage:
            stage = step.stage
            output.say(f"{stage}  {STAGES.get(stage, '')}")
        output.say(f"  {step.number:02d} · {step.title}{' *' if step.undo else ''}")
    output.say("* changes something, and has an undo. `fifty steps NUMBER` tells more.")


def _tell(step: catalogue.StepInfo) -> None:
    output.say(f"{step.number:02d} · {step.title}")
    output.facts(
        (
            ("stage", f"{step.stage} ({STAGES.get(step.stage, '')})"),
            ("undo", "yes" if step.undo else "nothing to undo"),
            ("retries", step.retries),
        )
    )
    output.say()
    output.say(textwrap.dedent(step.doc).strip())
