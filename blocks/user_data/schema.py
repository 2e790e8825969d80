"""cloud-init's own schema: does a cloud-config say only what that cloud-init knows?

The schema is the image's: another version knows other things. So it is content of an image,
as little to be trusted as the user data: both go to a process of their own, with limits on
time and memory, which reaches nothing of this host or beyond it (`schema_process`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from blocks.commands import Limits, run
from blocks.errors import HostFault, Transient, UnsafeImage

#: cloud-init 22.4 has 131 KiB, 24.4 has 150 KiB.
SCHEMA_LIMIT = 1024 * 1024
LIMITS = Limits(memory_bytes=512 * 1024**2, cpu_s=10)
_TIMEOUT_S = 120.0
_ROOT = Path(__file__).parents[2]


def violations(text: str, schema_file: Path) -> list[str]:
    """Where a cloud-config breaks a schema, a line each with its line; empty where nowhere.

    Args:
        text: The cloud-config; it is a YAML mapping.
        schema_file: cloud-init's `schema-cloud-config-v1.json`.

    Raises:
        UnsafeImage: The schema is none, or the two take more time or memory than is given.
    """
    words = (sys.executable, "-m", "blocks.user_data.schema_process", schema_file.absolute())
    try:
        said = run(*words, stdin=json.dumps(text), cwd=_ROOT, limits=LIMITS, timeout_s=_TIMEOUT_S)
    except (HostFault, Transient) as error:
        # What the process said may quote the user data.
        raise UnsafeImage(
            "the image's cloud-config schema cannot be worked with",
            hint="give the user data without #cloud-config, or another image",
        ) from error
    return [str(line) for line in json.loads(said.stdout)]
