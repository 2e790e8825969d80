"""User data: each of cloud-init's kinds, what is no such, and bombs; nothing of it is quoted."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
import time
from base64 import b64encode
from dataclasses import replace
from email.mime.application import MIMEApplication
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path

import pytest

from blocks.errors import InvalidRequest, UnsafeImage
from blocks.user_data import USER_DATA_LIMIT, check_user_data, kinds_in, wrong_for_guest
from blocks.user_data import schema as schemas
from blocks.user_data.bounded_yaml import MOST_NODES, load
from tests.unit.test_confined import needs_landlock, needs_seccomp

CANARY = "s3cr3t-Tr1angle"
CONFIG = f"#cloud-config\npassword: {CANARY}\n"
SCRIPT = f"#!/bin/sh\necho {CANARY}\n"
#: Like cloud-init's: alternatives, names, a pattern, keys of the user's own, a reference.
SCHEMA = {
    "$schema": "http://json-schema.org/draft-04/schema#",
    "$defs": {
        "commands": {
            "properties": {
                "runcmd": {
                    "type": "array",
                    "items": {
                        "oneOf": [
                            {"type": "array", "items": {"type": "string"}},
                            {"type": "string"},
                        ]
                    },
                }
            }
        }
    },
    "allOf": [
        {"$ref": "#/$defs/commands"},
        {
            "properties": {
                "hostname": {"type": "string"},
                "power_state": {
                    "type": "object",
                    "properties": {"mode": {"enum": ["halt", "reboot"]}},
                    "additionalProperties": False,
                    "required": ["mode"],
                },
                "disks": {"patternProperties": {"^.+$": {"type": "object"}}},
            }
        },
    ],
}


def message(*parts: MIMEText | MIMEApplication | MIMEMultipart) -> str:
    whole = MIMEMultipart()
    for part in parts:
        whole.attach(part)
    return whole.as_string()


def gzipped(content: bytes) -> MIMEApplication:
    return MIMEApplication(gzip.compress(content), "gzip")


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    return path


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        (CONFIG, ["cloud-config"]),
        ("#cloud-config\n", ["cloud-config"]),
        ("\n#Cloud-Config\na: 1\n", ["cloud-config"]),
        (SCRIPT, ["script"]),
        ("#! /usr/bin/env python3\n", ["script"]),
        ("#include\nhttps://example.org/a\n\n# and\nhttp://example.org/b", ["include"]),
        ("#include https://example.org/a\n", ["include"]),
        ("#include-once\nhttps://example.org/a\n", ["include-once"]),
        ("## template: jinja\n#cloud-config\nhostname: {{ v1.name }}\n", ["Jinja template"]),
        ("## template: jinja\n#!/bin/sh\n{% if a %}echo{% endif %}\n", ["Jinja template"]),
        ("#cloud-boothook\n#!/bin/sh\n", ["boothook"]),
        ("#part-handler\ndef list_types(): ...\ndef handle_part(d): ...\n", ["part handler"]),
        (
            "#cloud-config-archive\n- '#!/bin/sh'\n- {type: text/cloud-config, content: 'a: 1'}\n",
            ["script", "cloud-config"],
        ),
        (
            "#cloud-config-archive\n- 'hostname: a'\n- this is no payload\n- '#!/bin/sh'\n",
            ["cloud-config", "unknown", "script"],
        ),
        ('#cloud-config-jsonp\n[{"op": "add", "path": "/a", "value": 1}]\n', ["JSON patch"]),
        (
            message(
                MIMEText(CONFIG, "cloud-config"),
                MIMEText(SCRIPT, "x-shellscript-per-boot"),
                MIMEText(SCRIPT),
                gzipped(CONFIG.encode()),
            ),
            ["cloud-config", "script per boot", "script", "cloud-config"],
        ),
        ('{"ignition": {"version": "3.4.0"}}', ["unknown"]),
        ("#ps1_sysnative\nGet-Date\n", ["unknown"]),
        ("a: &a [1]\nb: *a\n", ["unknown"]),
    ],
)
def test_every_kind_is_taken_for_what_it_is(text: str, kinds: list[str]) -> None:
    check_user_data(text)
    assert kinds_in(text) == kinds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"#cloud-config\n- {CANARY}\n", "must be a YAML mapping"),
        (f"#cloud-config\n{CANARY}: [b\n", r"is not YAML \(line 3, column 1\)"),
        (f"#cloud-config\na: 2001-99-99 # {CANARY}\n", "a date or number"),
        (f"#cloud-config\n{CANARY}: {'9' * 5000}\n", "a date or number"),
        (f"#cloud-config\n{CANARY}: &a [*a]\n", "not there yet"),
        (f"#!\n{CANARY}", "no interpreter"),
        (f"#!sh {CANARY}\n", "no interpreter"),
        (f"#!/bin/sh\r\n{CANARY}\r\n", "line ends of DOS"),
        (f"#include\nftp://{CANARY}/\n", "line 2 is not a URL that a guest fetches"),
        (f"#include\nhttp:///{CANARY}\n", "without a host"),
        (f"#include\nhttp://[{CANARY}\n", "line 2 is not a URL"),
        (f"#include\n# {CANARY}\n", "includes nothing"),
        (f"## template: jinja\n#cloud-config\n{{% if {CANARY}\n", "is no Jinja template"),
        (f"## template: jinja\n{CANARY}\n", "nothing under its Jinja header"),
        (f"#part-handler\n{CANARY}\n", r"list_types\(\)"),
        (f"#cloud-config-jsonp\n[{CANARY}\n", "is not JSON"),
        (f'#cloud-config-jsonp\n{{"{CANARY}": 1}}\n', "JSON list"),
        (f"#cloud-config-archive\n{CANARY}\n", "must be a YAML list"),
        (f"#cloud-config-archive\n- [{CANARY}]\n", "part 1 must be text"),
        ("#cloud-config-archive\n- |\n  #cloud-config-archive\n  - a\n", "archive in an archive"),
        (
            f"#cloud-config-archive\n- '#!/bin/sh'\n- '#!{CANARY}'\n",
            "part 2 names no interpreter",
        ),
        (f"MIME-Version: 1.0\nContent-Type: multipart/mixed\n\n{CANARY}\n", "no whole MIME"),
        ("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b--\n", "MIME message"),
        (message(*[MIMEText("#!/bin/sh")] * 65), "more than 64 parts"),
        (message(MIMEText(SCRIPT), MIMEText(f"- {CANARY}", "cloud-config")), "part 2 must be a"),
        (message(MIMEText(f"#!/bin/sh\n{CANARY}", "jinja2")), "part 1 is a template that does"),
        (message(MIMEApplication(CANARY.encode(), "gzip")), "part 1 is not gzip"),
        (message(gzipped(b"\xff" + CANARY.encode())), "part 1 is no text in UTF-8"),
        ("\ud800" + CANARY, "is no text in UTF-8"),
        (CANARY + "x" * USER_DATA_LIMIT, "over the limit of 65536 bytes"),
        (CANARY + "\N{EURO SIGN}" * (USER_DATA_LIMIT // 3), "over the limit"),
    ],
)
def test_what_is_not_what_it_says_is_refused_without_quoting_it(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as raised:
        check_user_data(text)
    assert CANARY not in str(raised.value)
    # Nor is it in what a traceback would show beside the message.
    assert raised.value.__cause__ is None


def nested_messages(depth: int) -> str:
    text = "Content-Type: text/plain\n\n#!/bin/sh\n"
    for level in range(depth):
        head = f"Content-Type: multipart/mixed; boundary=b{level}\n\n--b{level}\n"
        text = f"{head}{text}\n--b{level}--\n"
    return f"MIME-Version: 1.0\n{text}"


BOMBS = {
    "aliases of aliases": "#cloud-config\na0: &a0 [1, 2]\n"
    + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)),
    "merged aliases": "#cloud-config\na0: &a0 {k: 1, l: 2}\n"
    + "".join(f"a{n}: &a{n} {{<<: [{','.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 12)),
    "brackets": "#cloud-config\na: " + "[" * 60_000,
    "braces": "#cloud-config\na: " + "{a: " * 15_000,
    "block sequences": "#cloud-config\n" + "- " * 30_000,
    "brackets in an archive": "#cloud-config-archive\n" + "[" * 60_000,
    "brackets in JSON": "#cloud-config-jsonp\n" + "[" * 60_000,
    "brackets in a template": "## template: jinja\n#cloud-config\n{{ " + "(" * 60_000,
    "a mebibyte in a few bytes": message(gzipped(b"#cloud-config\n" + b"\n" * 40 * 1024**2)),
    "messages in messages": nested_messages(600),
    "many nodes": "#cloud-config\na: [" + "1," * 30_000 + "]\n",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_bounded_time(name: str) -> None:
    assert len(BOMBS[name]) <= USER_DATA_LIMIT, "else only its length would be refused"
    began = time.process_time()
    with pytest.raises(ValueError, match=r"deep|nodes|over|not JSON"):
        check_user_data(BOMBS[name])
    assert time.process_time() - began < 20


def test_any_bytes_are_taken_or_refused_and_nothing_else_happens() -> None:
    """A bounded fuzz: pieces of all kinds, cut and put together anyhow, always the same."""
    source = random.Random(6)  # noqa: S311 - to be the same at every run
    pieces = [
        *("#cloud-config\n", "#include\n", "#!/bin/sh\n", "## template: jinja\n", "{{", "{%"),
        *("MIME-Version: 1.0\n", "Content-Type: multipart/mixed; boundary=x\n\n", "--x\n"),
        *("--x--\n", "Content-Type: application/gzip\n", "Content-Transfer-Encoding: base64\n\n"),
        *("#cloud-config-archive\n", "- ", "a: ", "&a ", "*a ", "<<: ", "!!binary ", "? ", "| \n"),
        *("!!python/object/apply:os.system [id]", "\x00", "\ud800", "\t", "é", "0x", "1e999", "["),
        b64encode(gzip.compress(b"#cloud-config\n")).decode(),
    ]
    outcomes = {"taken": 0, "refused": 0}
    for _ in range(1500):
        text = "".join(source.choice(pieces) for _ in range(source.randint(1, 14)))
        try:
            check_user_data(text)
            outcomes["taken"] += 1
        except ValueError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 100, outcomes


def test_nodes_are_counted_as_aliases_stand_for_them() -> None:
    plain = f"[{','.join(['1'] * (MOST_NODES - 1))}]"
    assert len(load(plain)) == MOST_NODES - 1
    assert load("{a: &a {k: 1}, b: {<<: *a, l: 2}}")["b"] == {"k": 1, "l": 2}
    with pytest.raises(ValueError, match="nodes"):
        load(f"- &a {plain}\n- *a\n")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("hostname: a\nruncmd: [ls, [ls, -l]]\n", []),
        ("1: {2: 3}\n", []),
        ("", []),
        ("hostname: !!binary aGVsbG8=\n", []),
        ("hostname: [s3]\n", ["hostname must be of the type string (line 2)"]),
        (
            "\npower_state:\n  mode: s3\n  s3: 1\n",
            [
                "power_state.mode must be one of halt, reboot (line 4)",
                "power_state has keys that are not known there; known are mode (line 4)",
            ],
        ),
        ("power_state: {}\n", ["power_state lacks mode (line 2)"]),
        (
            "runcmd:\n- ls\n- [ls, 7]\n",
            ["runcmd.1.1 must be of the type string (line 4)"],
        ),
        ("disks: {s3cr3t-Tr1angle: 7}\n", ["disks.* must be of the type object (line 2)"]),
    ],
)
def test_a_cloud_config_is_held_against_the_schema(
    schema: Path, said: str, told: list[str]
) -> None:
    assert wrong_for_guest(f"#cloud-config\n{said}", schema) == told


def test_parts_are_held_against_the_schema_each(schema: Path) -> None:
    text = message(
        MIMEText(SCRIPT), MIMEText("hello"), MIMEText("hostname: 7", "cloud-config"), MIMEText("#")
    )
    unknown, wrong, nothing = wrong_for_guest(text, schema)
    assert unknown.startswith("part 2 would be ignored: it begins with none of #!, ")
    assert wrong == "part 3 hostname must be of the type string (line 1)"
    assert nothing.startswith("part 4 would be ignored")
    assert len(wrong_for_guest(text, None)) == 2


@pytest.mark.parametrize(
    "hostile",
    [
        "no JSON",
        "[" * 100_000,
        json.dumps({"$ref": "#"}),
        json.dumps({"$ref": "file:///etc/passwd"}),
        json.dumps({"properties": {"hostname": {"pattern": "^(a+)+$"}}}),
        json.dumps({"properties": {"hostname": {"pattern": "("}}}),
        json.dumps({"allOf": 7}),
    ],
)
def test_a_hostile_schema_ends_in_bounded_time(
    tmp_path: Path, hostile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image's schema is the image's: it can say anything."""
    # The bound itself is not waited for: what ends after three seconds ends after ten.
    monkeypatch.setattr(schemas, "LIMITS", replace(schemas.LIMITS, cpu_s=3))
    path = tmp_path / "schema.json"
    path.write_text(hostile)
    text = f"#cloud-config\nhostname: {'a' * 60}{CANARY}\n"
    with pytest.raises(UnsafeImage) as raised:
        wrong_for_guest(text, path)
    assert CANARY not in f"{raised.value.message} {raised.value.hint}"


#: What reads the cloud-config, taken over by it: it tells what it can do by then.
TAKEN_OVER = """
import socket, sys
from pathlib import Path
from blocks.user_data import schema_process

def taken_over(text):
    said = [text]
    for path in sys.argv[2:]:
        for opening in ("rb", "ab"):
            try:
                open(path, opening).close()
                said.append(f"{path} {opening}")
            except PermissionError:
                pass
    for family in (socket.AF_UNIX, socket.AF_INET):
        try:
            socket.socket(family).close()
            said.append(str(family))
        except PermissionError:
            pass
    raise SystemExit(" ".join(said))

schema_process.load = taken_over
schema_process.main()
"""


@needs_landlock
@needs_seccomp
def test_what_takes_over_its_process_reaches_nothing(schema: Path, tmp_path: Path) -> None:
    (tmp_path / "state.db").write_text("secrets")
    paths = [str(tmp_path / "state.db"), str(schema), __file__, "/etc/passwd", "/proc/1/environ"]
    words = [sys.executable, "-c", TAKEN_OVER, str(schema), *paths]
    done = subprocess.run(words, input='"hello"', capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "hello"


def test_vendor_data_is_given_as_cloud_init_takes_it(tmp_path: Path) -> None:
    from tasks.metadata import vendor_data

    file = tmp_path / "vendor-data"
    assert vendor_data(None) == {}
    for text in (CONFIG, message(MIMEText(SCRIPT), MIMEText(CONFIG, "cloud-config"))):
        file.write_text(text)
        assert vendor_data(file) == {"cloud-init": text}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (f"#cloud-config\n- {CANARY}".encode(), "must be a YAML mapping"),
        (CANARY.encode() + b"\xff", "is no text in UTF-8"),
        (CANARY.encode() + b"x" * USER_DATA_LIMIT, "over the limit"),
    ],
)
def test_vendor_data_that_no_guest_could_use_stops_the_build(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    from tasks.metadata import vendor_data

    file = tmp_path / "vendor-data"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidRequest, match=words) as raised:
        vendor_data(file)
    assert CANARY not in raised.value.message
    assert raised.value.hint == "FIFTY_VENDOR_DATA names it"


@pytest.mark.parametrize("known", [True, False])
def test_an_images_own_cloud_init_decides_what_is_taken(tmp_path: Path, known: bool) -> None:
    """What steps 4 and 6 say: by the image's schema; of an image not looked into, nothing."""
    from blocks.images import ImageStore
    from blocks.resources import Image
    from tasks.draft import Draft
    from tasks.request_checks import check_user_data_for, valid_words

    store = ImageStore(tmp_path)
    image = Image.model_validate(
        {
            **{"id": "i1", "tenant_id": None, "name": "deb", "format": "qcow2", "path": "/none"},
            **{"sha256": "0" * 64, "size_bytes": 1, "virtual_size_bytes": 512},
            "report": {"cloud_init": {"version": "22.4.2"}} if known else None,
        }
    )
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "i1.schema").write_text(json.dumps(SCHEMA))
    form = {"name": "hello", "image": "deb", "networks": ["lab"]}
    good = Draft({**form, "user_data": message(MIMEText(SCRIPT), MIMEText("a: 1", "cloud-config"))})
    check_user_data_for(good, image, store)
    assert valid_words(good) == "valid; user data: script, cloud-config"
    check_user_data_for(Draft(form), image, store)
    assert valid_words(Draft(form)) == "valid"
    # Of the wrong form: that is step 4's to say.
    check_user_data_for(Draft({**form, "user_data": "#cloud-config\n[b"}), image, store)
    bad = Draft({**form, "user_data": f"#cloud-config\nruncmd: {CANARY}\nhostname: 7\n"})
    other = Draft({**form, "user_data": f"#ignition\n{CANARY}"})
    if not known:
        check_user_data_for(bad, image, store)
        check_user_data_for(other, image, store)
        return
    with pytest.raises(InvalidRequest, match="hostname must be of the type string") as raised:
        check_user_data_for(bad, image, store)
    assert raised.value.details == (
        "user_data: runcmd must be of the type array (line 2)",
        "user_data: hostname must be of the type string (line 3)",
    )
    assert raised.value.hint == "the image 'deb' has cloud-init 22.4.2"
    assert CANARY not in str(raised.value.details)
    with pytest.raises(InvalidRequest, match="would be ignored"):
        check_user_data_for(other, image, store)
