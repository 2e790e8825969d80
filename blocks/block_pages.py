"""What Prefect's UI shows of our block types beside their fields.

A logo is a URL, which the browser of whoever looks at the UI fetches. Ours is a picture that
our own Prefect server has, so that nothing is fetched from elsewhere.
"""

from __future__ import annotations

import os

from pydantic import HttpUrl

from blocks.settings import settings

_USUAL_API = "http://127.0.0.1:4200/api"


def logo_url() -> HttpUrl:
    """A square picture that the configured Prefect server serves with its UI."""
    api = os.environ.get("PREFECT_API_URL") or settings().prefect_api_url or _USUAL_API
    return HttpUrl(f"{api.rstrip('/').removesuffix('/api')}/ico/android-chrome-192x192.png")


def documentation_url() -> HttpUrl:
    """Prefect's page about blocks; looked at only by who follows the link."""
    return HttpUrl("https://docs.prefect.io/v3/concepts/blocks")
