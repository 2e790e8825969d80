"""The scripts of the trials with a volume and a snapshot, as a guest's shell takes them."""

from __future__ import annotations

import shlex

_HEAD = """\
export PATH="$PATH:/usr/sbin:/sbin:/usr/local/sbin" LC_ALL=C
if [ "$(id -u)" = 0 ] || ! sudo -n true 2>/dev/null; then as=; else as="sudo -n"; fi
"""
_FIND = """\
find_disk() {{
    for file in /sys/block/*/serial; do
        [ -e "$file" ] || continue
        if [ "$(cat "$file")" = {serial} ]; then
            file=${{file%/serial}}
            echo "${{file##*/}}"
            return
        fi
    done
}}
left={wait_s}
while disk=$(find_disk) && [ -z "$disk" ] && [ $left -gt 0 ]; do
    sleep 1
    left=$((left - 1))
done
if [ -z "$disk" ]; then echo "no disk with the serial "{serial}" has appeared"; exit 10; fi
"""
_WRITE = """\
made=
for make in "mkfs.ext4 -q -F" "mkfs.xfs -q -f" "mkfs.btrfs -q -f" "mke2fs -q -F" "mkfs.vfat"; do
    if command -v ${{make%% *}} >/dev/null; then made=$make; break; fi
done
if [ -z "$made" ]; then echo "there is no program that makes a file system"; exit 11; fi
if ! told=$($as $made "/dev/$disk" 2>&1); then echo "$made /dev/$disk: $told"; exit 12; fi
$as mkdir -p /run/fifty-volume
if ! $as mount "/dev/$disk" /run/fifty-volume; then echo "/dev/$disk does not mount"; exit 13; fi
echo {words} | $as tee /run/fifty-volume/written >/dev/null && sync
if ! $as umount /run/fifty-volume; then echo "it does not unmount"; exit 14; fi
echo "formatted by ${{made%% *}} and written, /dev/$disk"
"""
_READ = """\
$as mkdir -p /run/fifty-volume
if ! $as mount "/dev/$disk" /run/fifty-volume; then echo "/dev/$disk does not mount"; exit 13; fi
$as cat /run/fifty-volume/written
$as umount /run/fifty-volume
"""
#: On the root disk, where a file survives a restart.
_KEPT = "/var/fifty-certificate-snapshot"


def write_volume(serial: str, words: str, wait_s: int) -> str:
    """Format the disk of a serial number, and write words on it."""
    text = _HEAD + (_FIND + _WRITE)
    return text.format(serial=shlex.quote(serial), words=shlex.quote(words), wait_s=wait_s)


def read_volume(serial: str, wait_s: int) -> str:
    """Read what was written on the disk of a serial number."""
    text = _HEAD + (_FIND + _READ)
    return text.format(serial=shlex.quote(serial), wait_s=wait_s)


def keep(words: str) -> str:
    """Write words into a file of the root disk, and have them on the disk."""
    return f"{_HEAD}echo {shlex.quote(words)} | $as tee {_KEPT} >/dev/null && sync\n"


def kept() -> str:
    """Read the words that are in the file of the root disk."""
    return f"{_HEAD}$as cat {_KEPT}\n"
