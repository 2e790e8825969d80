"""The files that a command line names: keys in all their forms, injected files, limits."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from blocks.errors import InvalidRequest
from blocks.guest.key_files import make_key_pair
from blocks.resources.request import INJECT_LIMIT, VmRequest
from blocks.user_data import USER_DATA_LIMIT
from deployments.cli.files import Findings


def _keygen(file: Path, *options: str) -> str:
    """A key pair of OpenSSH's own making; the public half without its comment."""
    words = ["ssh-keygen", "-q", "-N", "", "-C", "me", "-f", str(file), *options]
    subprocess.run(words, check=True, timeout=60)
    return " ".join(Path(f"{file}.pub").read_text().split()[:2])


@pytest.mark.parametrize(
    "options",
    [
        ("-t", "ed25519"),
        ("-t", "ecdsa"),
        ("-t", "rsa", "-b", "2048"),
        ("-t", "rsa", "-b", "2048", "-m", "PEM"),
    ],
)
def test_a_key_by_either_half(tmp_path: Path, options: tuple[str, ...]) -> None:
    private = tmp_path / "key"
    public = _keygen(private, *options)
    findings = Findings()
    assert findings.key(f"{private}.pub") == f"{public} me"
    assert findings.key(str(private)) == f"{public} me"
    Path(f"{private}.pub").unlink()
    derived = findings.key(str(private))
    findings.refuse()
    assert derived.split()[:2] == public.split()
    form = {"name": "a", "image": "i", "networks": ["n"], "key": derived}
    assert VmRequest.model_validate(form).key == derived


def test_a_private_key_with_a_passphrase(tmp_path: Path) -> None:
    private = tmp_path / "key"
    _keygen(private, "-t", "ed25519", "-N", "secret word")
    Path(f"{private}.pub").unlink()
    findings = Findings()
    findings.key(str(private))
    with pytest.raises(InvalidRequest, match="passphrase"):
        findings.refuse()


def test_a_key_pairs_name_is_no_file() -> None:
    findings = Findings()
    assert findings.key("default") == "default"
    assert findings.key("with space") == "with space"
    findings.refuse()


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\x00" * 50, b"ssh-rsa A\nssh-rsa B\n"])
def test_files_that_are_no_key(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    findings = Findings()
    findings.key(str(file))
    with pytest.raises(InvalidRequest, match="--key"):
        findings.refuse()


def test_our_own_key_pair_is_one_of_opensshs(tmp_path: Path) -> None:
    public, private = make_key_pair(tmp_path, "mine")
    assert private.stat().st_mode & 0o777 == 0o600
    done = subprocess.run(
        ["ssh-keygen", "-y", "-P", "", "-f", str(private)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split()[:2] == public.split()[:2]
    assert make_key_pair(tmp_path, "mine") == (public, private)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mine", "mine.pub"]


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "a\nb", "x" * 64, "-x"])
def test_names_that_are_none_for_a_key_pair(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest):
        make_key_pair(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_an_injected_file_keeps_its_content_and_mode(tmp_path: Path) -> None:
    source = tmp_path / "a:b"
    source.write_bytes(b"\x00secret")
    source.chmod(0o4600)
    findings = Findings()
    found = findings.injected(f"{source}:/etc/x:y")
    findings.refuse()
    assert base64.b64decode(found["content_base64"]) == b"\x00secret"
    assert (found["path"], found["mode"]) == ("/etc/x:y", 0o600)


def test_a_destination_that_is_wrong_is_left_to_step_4(tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_text("x")
    findings = Findings()
    assert findings.injected(f"{source}:etc/x")["path"] == "etc/x"
    assert findings.injected(f"{source}:/etc/../x")["path"] == "/etc/../x"
    findings.refuse()


def test_files_without_end_are_read_to_the_limit_only() -> None:
    findings = Findings()
    text = findings.user_data("/dev/zero")
    assert USER_DATA_LIMIT < len(text) <= USER_DATA_LIMIT + 4
    content = base64.b64decode(findings.injected("/dev/zero:/x")["content_base64"])
    assert INJECT_LIMIT < len(content) <= INJECT_LIMIT + 4
    # They are over the limit: step 4 says so, together with all else.
    findings.refuse()


def test_user_data_that_is_cut_inside_a_character_is_still_only_too_long(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_text("x" + "\N{EURO SIGN}" * USER_DATA_LIMIT, encoding="utf-8")
    findings = Findings()
    assert len(findings.user_data(str(file)).encode()) > USER_DATA_LIMIT
    findings.refuse()


@pytest.mark.parametrize("word", ["", "x", "1.5", "1e3", "0x10", "1_0", " 1", "\u0661", "9" * 30])
def test_words_that_are_no_whole_number(word: str) -> None:
    findings = Findings()
    findings.whole("--volume", word)
    with pytest.raises(InvalidRequest):
        findings.refuse()


@pytest.mark.parametrize(("word", "number"), [("0", 0), ("-1", -1), ("+7", 7), ("20", 20)])
def test_whole_numbers(word: str, number: int) -> None:
    findings = Findings()
    assert findings.whole("--volume", word) == number
    findings.refuse()
