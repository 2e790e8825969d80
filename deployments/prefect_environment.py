"""The environment variables of our Prefect server, and of those who speak with it.

They are given as variables, not in a profile, so that a person's own Prefect profiles
and servers are neither used nor changed. Names and defaults: Prefect's settings reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

#: Nothing that we start reports to anybody.
_SILENT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
}


def without_prefect(environment: Mapping[str, str]) -> dict[str, str]:
    """A copy of `environment` without anything that configures Prefect."""
    return {name: value for name, value in environment.items() if not name.startswith("PREFECT_")}


def client_environment(home: Path, api_url: str, auth: str | None) -> dict[str, str]:
    """What a process needs in its environment before it imports Prefect.

    Args:
        home: FIFTY_HOME; Prefect's own files go into `home/prefect`.
        api_url: The server's API, e.g. `http://127.0.0.1:4200/api`.
        auth: `USER:PASSWORD` for it.
    """
    prefect_home = home / "prefect"
    return {
        **_SILENT,
        "PREFECT_HOME": str(prefect_home),
        "PREFECT_PROFILES_PATH": str(prefect_home / "profiles.toml"),
        "PREFECT_API_URL": api_url,
        **({"PREFECT_API_AUTH_STRING": auth} if auth else {}),
        # The steps' results: what a resumed build goes on from.
        "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(home / "checkpoints"),
        # Without a server a run must fail, not wait 15 s for one of its own.
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        # Seconds. We need none (see prefect_watch); for automations of an operator's own.
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    }


def server_environment(home: Path, port: int, auth: str) -> dict[str, str]:
    """What our Prefect server is started with.

    Args:
        home: FIFTY_HOME; the server's SQLite file is `home/prefect/prefect.db`.
        port: The port on 127.0.0.1.
        auth: `USER:PASSWORD`, without which the server answers nobody.
    """
    api_url = f"http://127.0.0.1:{port}/api"
    database = home / "prefect" / "prefect.db"
    return {
        **client_environment(home, api_url, auth),
        "PREFECT_SERVER_API_AUTH_STRING": auth,
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{database}",
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_UI_API_URL": api_url,
        # With the defaults a SQLite server stalls for seconds at random: fifty task runs
        # are written one by one, and each write waits for the one before.
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
        # Whole seconds: Prefect cuts the value to an integer, and 0.5 became a busy loop.
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
        # Deleted after 90 days, Prefect's default: else nothing ever is. The runs of the
        # scheduled upkeep go earlier, by the flow clean-cache.
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    }
