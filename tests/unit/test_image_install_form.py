"""The request for an installation: what is taken, and what is refused before anything is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from blocks.errors import InvalidRequest
from blocks.resources.image_install import InstallRequest
from deployments.cli.image_install import _windows

FORM: dict[str, Any] = {"name": "server", "medium": "/srv/installer.iso"}
WINDOWS: dict[str, Any] = {
    "edition": "Windows Server 2022 SERVERSTANDARD",
    "accept_license": True,
    "password_secret": "windows-password",
    "virtio_win": "/srv/virtio-win.iso",
    "programs": {"cloudbase-init.msi": "/srv/cloudbase-init.msi"},
}


def test_whose_installer_it_is_and_what_is_read_of_the_host() -> None:
    linux = InstallRequest.model_validate(FORM)
    assert (linux.system, linux.machine_firmware) == ("linux", "bios")
    assert linux.host_files == ("/srv/installer.iso",)
    windows = InstallRequest.model_validate({**FORM, "windows": WINDOWS})
    assert (windows.system, windows.machine_firmware) == ("windows", "uefi")
    assert windows.host_files == (
        *("/srv/installer.iso", "/srv/virtio-win.iso", "/srv/cloudbase-init.msi"),
    )


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"medium": "installer.iso"}, "absolute path"),
        ({"medium": "/srv/../etc/shadow"}, "without '..'"),
        ({"medium": "/srv/a\nb"}, "absolute path"),
        ({"answers": [{"path": "../user-data", "content": ""}]}, "must not hold"),
        ({"answers": [{"path": "a/./b", "content": ""}]}, "must not hold"),
        ({"answers": [{"path": f"{n}", "content": "x" * 100_000} for n in range(3)]}, "together"),
        ({"answers": [{"path": "ks.cfg", "content": ""}], "windows": WINDOWS}, "only one of them"),
        ({"answers_label": "with space"}, "pattern"),
        ({"disk_gib": 0}, "greater than or equal"),
        ({"timeout_min": 0}, "greater than or equal"),
        ({"windows": {**WINDOWS, "accept_license": False}}, "True"),
        ({"windows": {**WINDOWS, "password": "in the clear"}}, "Extra inputs"),
        ({"windows": {**WINDOWS, "programs": {"cloudbase-init.msi": "x.msi"}}}, "absolute path"),
        ({"login_user": "root; id"}, "pattern"),
    ],
)
def test_wrong_requests_are_refused(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        InstallRequest.model_validate({**FORM, **changed})


def test_windows_answers_come_from_a_file_with_paths_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text(
        'edition = 2\naccept_license = true\npassword_secret = "windows-password"\n'
        'virtio_win = "virtio-win.iso"\n[programs]\n"cloudbase-init.msi" = "/srv/c.msi"\n'
    )
    said = _windows(file)
    request = InstallRequest.model_validate({**FORM, "windows": said})
    assert request.windows is not None
    assert request.windows.virtio_win == str(tmp_path / "virtio-win.iso")
    assert request.windows.programs == {"cloudbase-init.msi": "/srv/c.msi"}
    file.write_text("edition = ")
    with pytest.raises(InvalidRequest, match="is not TOML"):
        _windows(file)
    with pytest.raises(InvalidRequest, match="No such file"):
        _windows(tmp_path / "none.toml")
