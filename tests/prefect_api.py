"""The Prefect API as a plain HTTP client sees it."""

from __future__ import annotations

import os
from typing import Any

import requests


def password() -> tuple[str, str]:
    """User and password of the session's server."""
    user, _colon, secret = os.environ["PREFECT_API_AUTH_STRING"].partition(":")
    return user, secret


def api(method: str, path: str, **arguments: Any) -> requests.Response:  # noqa: ANN401
    """Send one request, with the password unless `auth` says otherwise.

    Args:
        method: GET, POST and so on.
        path: Below `/api`, with a leading slash.
        arguments: As `requests.request` takes them.
    """
    arguments.setdefault("auth", password())
    url = os.environ["PREFECT_API_URL"] + path
    return requests.request(method, url, timeout=120, **arguments)
