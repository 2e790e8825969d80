"""cloud-init in an image: what its files say, as cloud-init itself would read them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from blocks.errors import UnsafeImage
from blocks.images import ImageStore
from blocks.images.cloud_init import TreeFiles, look
from blocks.user_data import wrong_for_guest

PACKAGE = "usr/lib/python3/dist-packages/cloudinit"
SCHEMA = json.dumps({"properties": {"hostname": {"type": "string"}}})
FILES = {
    f"{PACKAGE}/version.py": '__VERSION__ = "22.4.2"\n_PACKAGED_VERSION = "22.4.2-1+deb12u4"\n',
    f"{PACKAGE}/config/cc_ssh.py": "",
    f"{PACKAGE}/config/cc_write_files.py": "",
    f"{PACKAGE}/config/cc_runcmd.py": "",
    f"{PACKAGE}/config/schemas/schema-cloud-config-v1.json": SCHEMA,
    "etc/cloud/cloud.cfg": """
cloud_init_modules: [ssh, migrator]
cloud_config_modules:
 - write-files
 - [runcmd, always]
 - {name: cc_ssh, frequency: once}
cloud_final_modules: [runcmd]
datasource_list: [NoCloud]
system_info: {distro: debian, default_user: {name: debian, shell: /bin/sh}}
""",
    "etc/cloud/cloud.cfg.d/05_first.cfg": "datasource_list: [Ec2]\ncloud_final_modules: [ssh]\n",
    "etc/cloud/cloud.cfg.d/90_last.cfg": """
datasource_list: [ConfigDrive, None]
system_info: {default_user: {name: somebody}}
""",
    "etc/cloud/cloud.cfg.d/95_not_read": "datasource_list: [Azure]\n",
    "etc/cloud/cloud.cfg.d/99_broken.cfg": "datasource_list: [\n",
    "etc/cloud/cloud.cfg.d/99_template.cfg": "## template: jinja\ndatasource_list: [GCE]\n",
}


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_stages_version_and_sources_are_read_as_cloud_init_reads_them(tmp_path: Path) -> None:
    found = look(TreeFiles(tree(tmp_path, FILES)))
    assert found is not None
    seen, schema = found
    assert schema == SCHEMA
    assert (seen.version, seen.enabled) == ("22.4.2-1+deb12u4", True)
    assert seen.datasources == ("ConfigDrive", "None")
    assert seen.default_user == "somebody"
    told = {
        stage: [(one.name, one.frequency, one.there) for one in modules]
        for stage, modules in seen.stages.items()
    }
    assert told == {
        "init": [("ssh", None, True), ("migrator", None, False)],
        "config": [
            ("write-files", None, True),
            ("runcmd", "always", True),
            ("cc_ssh", "once", True),
        ],
        "final": [("ssh", None, True)],
    }


def test_an_image_without_it_and_one_where_it_is_off(tmp_path: Path) -> None:
    assert look(TreeFiles(tree(tmp_path / "none", {"etc/fstab": ""}))) is None
    off = tree(tmp_path / "off", FILES | {"etc/cloud/cloud-init.disabled": ""})
    found = look(TreeFiles(off))
    assert found is not None and not found[0].enabled


def test_its_files_are_hostile(tmp_path: Path) -> None:
    """An image's own files: nothing outside of it is read, and nonsense is left out."""
    canary = tmp_path / "canary"
    canary.write_text("cloud_init_modules: [canary]\n")
    root = tree(
        tmp_path / "root",
        {
            f"{PACKAGE}/version.py": "__VERSION__ = '7'\n__VERSION__ = open('/etc/passwd').read()",
            "etc/cloud/cloud.cfg": "conf_d: /../../..\n"
            "cloud_init_modules: [{a: b}, [], 7, '../x']\n"
            "datasource_list: {a: [b]}\nsystem_info: [default_user]\n",
        },
    )
    (root / "etc/cloud/cloud.cfg.d").symlink_to(tmp_path)
    (root / f"{PACKAGE}/config").symlink_to("/etc")
    found = look(TreeFiles(root))
    assert found is not None
    seen, schema = found
    assert (seen.version, seen.datasources, seen.default_user, schema) == ("7", (), None, None)
    assert not any(seen.stages.values())
    (root / "etc/cloud/cloud.cfg").unlink()
    (root / "etc/cloud/cloud.cfg").symlink_to(canary)
    found = look(TreeFiles(root))
    assert found is not None and not any(found[0].stages.values())
    schema_file = f"{PACKAGE}/config/schemas/schema-cloud-config-v1.json"
    large = tree(tmp_path / "large", FILES | {schema_file: " " * (1024**2 + 1)})
    with pytest.raises(UnsafeImage, match="schema is over"):
        look(TreeFiles(large))


def test_the_schema_is_kept_with_the_image_and_goes_with_it(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "images")
    (tmp_path / "images/store").mkdir(parents=True)
    image = "7b5bd0a2-6a5c-4d83-9a6c-0d4b4e6f0a01"
    assert store.cloud_config_schema(image) is None
    seen = store.keep_cloud_init(image, TreeFiles(tree(tmp_path / "root", FILES)))
    assert seen is not None
    assert seen.schema_sha256 == hashlib.sha256(SCHEMA.encode()).hexdigest()
    kept = store.cloud_config_schema(image)
    assert kept is not None
    assert wrong_for_guest("#cloud-config\nhostname: 7\n", kept) == [
        "hostname must be of the type string (line 2)"
    ]
    assert [(one.kind, one.owner) for one in store.inventory()] == [("image-file", image)]
    store.remove_image(image)
    assert store.cloud_config_schema(image) is None
    assert store.inventory() == []
