"""debian-12, end to end: the real cloud-init, unmodified, in a guest that grows to its disk."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path

import pytest

from tests.cloud import Cloud

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

CONFIG = """#cloud-config
write_files:
  - path: /etc/written-by-cloud-init
    content: "hello from user data\\n"
    permissions: "0640"
runcmd:
  - [sh, -c, "hostname > /run/runcmd-ran"]
"""
#: The user data's second part: a template, which cloud-init renders and then runs.
TEMPLATE = """## template: jinja
#!/bin/sh
echo "{{ v1.local_hostname }} {{ ds.meta_data.uuid }}" > /run/template-ran
"""
#: The operator's own, which every guest of the site gets.
VENDOR_DATA = "#!/bin/sh\necho operator > /run/vendor-ran\n"
#: What cloud-init's own code reads of its configuration.
STAGES = """import json; from cloudinit.util import read_conf_with_confd as read
said = read("/etc/cloud/cloud.cfg")
print(json.dumps([said["datasource_list"], *(said[f"cloud_{each}_modules"]
    for each in ("init", "config", "final"))]))
"""
GIB = 1024**3


@pytest.fixture(scope="module")
def built(site_cloud: Cloud) -> Cloud:
    """The image debian-12."""
    site_cloud.fifty("image", "build", "debian-12")
    return site_cloud


@pytest.fixture(scope="module")
def debian(built: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A VM `deb` from the image debian-12, with a volume and user data."""
    folder = tmp_path_factory.mktemp("debian")
    user_data, vendor_data = folder / "user-data", folder / "vendor-data"
    message = MIMEMultipart()
    message.attach(MIMEText(CONFIG, "cloud-config"))
    message.attach(MIMEText(TEMPLATE, "jinja2"))
    user_data.write_text(message.as_string())
    vendor_data.write_text(VENDOR_DATA)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIFTY_VENDOR_DATA", str(vendor_data))
        built.fifty(
            *("vm", "create", "deb", "--image", "debian-12", "--flavor", "small"),
            *("--network", "lab", "--volume", "1", "--user-data", str(user_data)),
        )
    yield built
    built.fifty("vm", "delete", "deb")


def test_the_image_passes_every_point_of_the_static_check(debian: Cloud) -> None:
    report = debian.json("image", "check", "debian-12")
    assert {one["verdict"] for one in report["findings"]} == {"pass"}, report
    assert all(one["evidence"] for one in report["findings"])


def test_cloud_init_did_all_of_it(debian: Cloud) -> None:
    assert debian.ssh("deb", "cloud-init status").strip() == "status: done"
    assert "ConfigDrive" in debian.ssh("deb", "cat /run/cloud-init/result.json")


def test_the_guest_has_its_name_and_key(debian: Cloud) -> None:
    assert debian.ssh("deb", "hostname").strip() == "deb"
    public = (debian.home / "keys" / "default.pub").read_text().split()[1]
    assert public in debian.ssh("deb", "cat ~/.ssh/authorized_keys")


def test_user_data_wrote_a_file_and_ran_a_command(debian: Cloud) -> None:
    assert debian.ssh("deb", "sudo cat /etc/written-by-cloud-init") == "hello from user data\n"
    assert debian.ssh("deb", "cat /run/runcmd-ran").strip() == "deb"


def test_a_part_of_the_user_data_was_a_template(debian: Cloud) -> None:
    words = debian.ssh("deb", "cat /run/template-ran").split()
    assert words == ["deb", debian.instance("deb").id]


def test_the_operators_vendor_data_ran_too(debian: Cloud) -> None:
    assert debian.ssh("deb", "cat /run/vendor-ran") == "operator\n"


def test_the_image_tells_what_runs_in_which_stage(debian: Cloud) -> None:
    """What was read from the image without booting it is what cloud-init itself reads."""
    seen = debian.json("image", "show", "debian-12")["report"]["cloud_init"]
    asked = json.loads(debian.ssh("deb", f"python3 -c {shlex.quote(STAGES)}"))
    told = [[one["name"] for one in modules] for modules in seen["stages"].values()]
    assert [seen["datasources"], *told] == [[str(one) for one in asked[0]], *asked[1:]]
    assert all(one["there"] for modules in seen["stages"].values() for one in modules)
    version = debian.ssh("deb", "dpkg-query -Wf '${Version}' cloud-init")
    assert version.startswith(f"{seen['version']}-")
    shown = debian.fifty("image", "show", "debian-12")
    assert "growpart, resizefs" in next(
        line for line in shown.splitlines() if line.startswith("stage init")
    )


def test_the_static_check_reads_the_same_from_the_disk(debian: Cloud) -> None:
    """Not from the tree that it was built of, but from the image's own file system."""
    before = debian.json("image", "show", "debian-12")["report"]["cloud_init"]
    debian.fifty("image", "check", "debian-12", code=None)
    report = debian.json("image", "show", "debian-12")["report"]
    assert report["cloud_init"] == before
    verdicts = {one["point"]: one["verdict"] for one in report["check"]["findings"]}
    assert verdicts["cloud-init"] == "pass"


def test_user_data_that_its_cloud_init_does_not_know_is_refused(
    debian: Cloud, tmp_path: Path
) -> None:
    wrong = tmp_path / "user-data"
    wrong.write_text("#cloud-config\nruncmd: ls\npower_state: {mode: fly}\n")
    before = debian.inventory()
    words = ("vm", "create", "wrong", "--image", "debian-12", "--flavor", "small")
    told = debian.json(*words, "--network", "lab", "--user-data", str(wrong), code=1)
    assert told["error"] == "InvalidRequest"
    lines = [*told["details"], told["message"], told["hint"]]
    assert any("runcmd must be of the type array (line 2)" in line for line in lines), told
    assert any("power_state.mode must be one of" in line for line in lines), told
    assert debian.inventory() == before


def test_the_root_file_system_has_grown_to_the_flavors_disk(debian: Cloud) -> None:
    size = int(debian.ssh("deb", "df -B1 --output=size /").splitlines()[-1])
    assert 4.5 * GIB < size <= 5 * GIB


def test_the_volume_is_there(debian: Cloud) -> None:
    assert debian.ssh("deb", "lsblk -bdno SIZE /dev/vdb").strip() == str(GIB)


def test_nothing_in_the_guest_has_failed(debian: Cloud) -> None:
    assert debian.ssh("deb", "systemctl --failed --no-legend --plain") == ""
    assert len(debian.ssh("deb", "cat /etc/machine-id").strip()) == 32


def test_the_guest_took_what_dhcp_told(debian: Cloud) -> None:
    assert debian.ssh("deb", "ip -j link | grep -o 'mtu\":[0-9]*' | tail -n 1") == 'mtu":1450\n'
    assert "default via 10.77.1.1" in debian.ssh("deb", "ip route")


def test_the_image_gets_its_certificate(built: Cloud) -> None:
    held = built.json("image", "certify", "debian-12", "--flavor", "small")
    assert {one["verdict"] for one in held["tests"]} == {"pass"}, held
    assert held["versions"]["cloud-init"]
    assert held["versions"]["guest"].startswith("Debian GNU/Linux 12")
