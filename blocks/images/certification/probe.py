"""What is asked in a guest: one script over one login, and its answer taken apart.

The script is POSIX shell for busybox and coreutils alike. It changes nothing but what
`mount -a` does, and its own file in /run.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath

#: So much of each answer is taken: a guest may say as much as it likes.
_LONGEST = 4096
#: What the user data writes: that a script was carried out at the first boot.
SCRIPT_RAN = PurePosixPath("/run/fifty-certificate-script")

_SCRIPT = """\
export PATH="$PATH:/usr/sbin:/sbin:/usr/local/sbin" LC_ALL=C
if [ "$(id -u)" = 0 ] || ! sudo -n true 2>/dev/null; then as=; else as="sudo -n"; fi
part() {{ printf '\\n{token} %s\\n' "$1"; shift; "$@" 2>&1 </dev/null | head -c {longest}; }}
code() {{ "$@" 2>&1; echo "exit $?"; }}
show() {{ cat "$1" 2>/dev/null || $as cat "$1"; }}
agent() {{
    command -v cloud-init || [ ! -e /etc/cloud/cloud.cfg ] || echo /etc/cloud/cloud.cfg
}}
if [ -n "$(agent)" ]; then
    left={wait_s}
    while [ ! -e /run/cloud-init/result.json ] && [ $left -gt 0 ]; do
        sleep 1
        left=$((left - 1))
    done
fi
part agent agent
part result show /run/cloud-init/result.json
part status show /run/cloud-init/status.json
part script show {script_ran}
part injected code show {injected}
part hostname hostname
part clock date '+%s %z %Z'
part root df -P -k /
part fstab sh -c '[ ! -e /etc/fstab ] || cat /etc/fstab'
part mounts cat /proc/mounts
part mount-a code sh -c "[ ! -e /etc/fstab ] || $as mount -a"
part tmp ls -A /tmp
part release cat /etc/os-release
part kernel uname -r
part cloud-init cloud-init --version
part end echo all
"""


def script(token: str, injected: PurePosixPath, wait_s: int) -> str:
    """The script that asks all.

    Args:
        token: Letters and digits that nobody can foresee; marks the answers' beginnings.
        injected: The file that step 30 wrote.
        wait_s: How long cloud-init may take to its end, from now on.
    """
    return _SCRIPT.format(
        token=token,
        longest=_LONGEST,
        wait_s=int(wait_s),
        script_ran=shlex.quote(str(SCRIPT_RAN)),
        injected=shlex.quote(str(injected)),
    )


def answers(output: str, token: str) -> Mapping[str, str]:
    """What a guest answered, by the question's name; the first answer to each counts.

    Empty strings stand for what it said nothing to. A guest is not trusted to answer
    truly, only kept from doing harm by its answers.
    """
    parts = re.split(rf"^{re.escape(token)} ([a-z-]+)$", output, flags=re.MULTILINE)
    found: dict[str, str] = {}
    for name, text in zip(parts[1::2], parts[2::2], strict=True):
        found.setdefault(name, text.strip("\n")[:_LONGEST])
    return found
