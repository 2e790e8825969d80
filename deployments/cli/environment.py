"""`fifty env`: what `curl` and the command `prefect` need to speak with our server."""

from __future__ import annotations

import shlex

from blocks.settings import settings
from deployments import prefect_settings
from deployments.cli import output
from deployments.cli.context import Json, require_root
from deployments.prefect_environment import client_environment


def env(*, json: Json = False) -> None:
    """Print the environment for `curl` and `prefect`, password included, for a shell.

    To be used as: eval "$(fifty env)"
    """
    require_root("telling the Prefect server's password")
    here = settings()
    url = prefect_settings.api_url(here)
    auth = prefect_settings.auth(here, url)
    variables = {"FIFTY_HOME": str(here.home), **client_environment(here.home, url, auth)}
    if json:
        output.document(variables)
        return
    for name, value in variables.items():
        output.say(f"export {name}={shlex.quote(value)}")
