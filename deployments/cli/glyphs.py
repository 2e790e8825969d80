"""The signs for steps and stages that the command line draws."""

from __future__ import annotations

GLYPHS = {
    "pending": "·",
    "running": "▶",
    "done": "✔",
    "failed": "✘",
    "undoing": "◀",
    "undone": "↶",
    "undo_failed": "‼",
}

#: The stages' letters, in the order of the fifty steps.
STAGES = {
    "A": "API",
    "S": "scheduler",
    "C": "compute",
    "N": "network",
    "V": "volumes",
    "H": "hypervisor",
    "G": "guest",
}
