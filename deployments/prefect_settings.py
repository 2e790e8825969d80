"""What a process of ours sets before it imports Prefect, and whether the server answers.

Prefect reads its settings once, when it is imported; so this module does not import it.
A variable that is in the environment already is left as it is.
"""

from __future__ import annotations

import base64
import http.client
import os
from urllib.parse import urlsplit

from blocks.errors import Denied, InvalidRequest, NotFound, Transient
from blocks.settings import Settings
from deployments.prefect_environment import client_environment

_ANSWER_S = 10.0
_HINT = (
    "`python -m deployments.daemons start` starts one here; "
    "`fifty init --api-url URL` tells of another one"
)


def api_url(settings: Settings) -> str:
    """The Prefect server's API: PREFECT_API_URL, else what `fifty init` was told.

    Raises:
        NotFound: No server is known.
    """
    url = os.environ.get("PREFECT_API_URL") or settings.prefect_api_url
    if not url:
        raise NotFound("no Prefect server is known", hint=_HINT)
    return url.rstrip("/")


def auth(settings: Settings, url: str) -> str | None:
    """`USER:PASSWORD` for the Prefect server, as the environment or `fifty.env` has it.

    Args:
        settings: With what `fifty init` was told.
        url: The server's API. The password that is kept is for the server it was kept
            with, and is sent to no other.
    """
    given = os.environ.get("PREFECT_API_AUTH_STRING") or os.environ.get("FIFTY_PREFECT_AUTH")
    if given:
        return given
    kept = settings.prefect_auth
    known = settings.prefect_api_url or ""
    return kept.get_secret_value() if kept and url == known.rstrip("/") else None


def prepare(settings: Settings, *, console: bool) -> str:
    """Set the environment for Prefect's import; there is never an ephemeral server.

    Args:
        settings: Where the server is, and where checkpoints are kept.
        console: Whether the runs' logs also go to the terminal. They always go to the API.

    Returns:
        The API's URL.

    Raises:
        NotFound: No server is known.
    """
    url = api_url(settings)
    values = {
        **client_environment(settings.home, url, auth(settings, url)),
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    }
    if not console:
        values["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    for name, value in values.items():
        os.environ.setdefault(name, value)
    return url


def require_answer(url: str) -> None:
    """Check that a Prefect server answers at this API, and takes our password.

    Raises:
        InvalidRequest: It is not an HTTP URL.
        Denied: It wants another password.
        Transient: Nothing answers, or it is not well.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidRequest(
            f"{url!r} is not the URL of a Prefect API", hint="such as http://127.0.0.1:4200/api"
        )
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=_ANSWER_S)
    base, header = parts.path.rstrip("/"), _authorization()
    try:
        # Anybody is told how the server is, and only those with the password which one.
        connection.request("GET", f"{base}/health", headers=header)
        well = connection.getresponse()
        said = well.read().strip()
        connection.request("GET", f"{base}/admin/version", headers=header)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Transient(f"the Prefect server does not answer at {url}: {error}", hint=_HINT) from (
            error
        )
    finally:
        connection.close()
    if status == http.client.UNAUTHORIZED:
        raise Denied(
            f"the Prefect server at {url} wants {'another' if header else 'a'} password",
            hint="set FIFTY_PREFECT_AUTH=USER:PASSWORD, and no other PREFECT_API_AUTH_STRING; "
            "that of a server which was started here is in its FIFTY_HOME/fifty.env",
        )
    if status != http.client.OK or well.status != http.client.OK or said != b"true":
        raise Transient(f"no Prefect server, or an ill one, answers at {url}", hint=_HINT)


def run_url(url: str, flow_run_id: str) -> str:
    """Where a person looks at a flow run."""
    base = os.environ.get("PREFECT_UI_URL") or url.removesuffix("/api")
    return f"{base.rstrip('/')}/runs/flow-run/{flow_run_id}"


def _authorization() -> dict[str, str]:
    secret = os.environ.get("PREFECT_API_AUTH_STRING")
    if not secret:
        return {}
    return {"Authorization": "Basic " + base64.b64encode(secret.encode()).decode()}
