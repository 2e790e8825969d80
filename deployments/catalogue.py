"""The catalogues of steps as a file, for commands that must not wait for Prefect's import.

The truth is in the decorators of `tasks`; `FIFTY_HOME/catalogue.json` is a copy, written
whenever a command has imported `tasks` anyway.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

_FILE = "catalogue.json"


class StepInfo(BaseModel):
    """A step as `fifty steps` tells it.

    Attributes:
        undo: Whether it changes something, and so can be undone.
        retries: How often a transient error of it is tried again.
        doc: What it does, and what OpenStack does here.
    """

    model_config = ConfigDict(frozen=True)

    number: int
    title: str
    stage: str
    undo: bool
    retries: int
    doc: str


Catalogues = dict[str, list[StepInfo]]


def from_tasks() -> Catalogues:
    """All catalogues, from the decorators; imports `tasks`, and so Prefect."""
    package = importlib.import_module("tasks")
    kind = importlib.import_module("tasks.step").Catalogue
    found: Catalogues = {}
    modules = [
        importlib.import_module(f"tasks.{module.name}")
        for module in pkgutil.iter_modules(package.__path__)
    ]
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, kind):
                found[value.name] = [_info(step) for step in value.steps.values()]
    return found


def _info(step: Any) -> StepInfo:  # noqa: ANN401 - tasks.step.Step, whose import is Prefect's
    return StepInfo(
        number=step.number,
        title=step.title,
        stage=step.stage,
        undo=step.undo is not None,
        retries=step.retries,
        doc=step.doc,
    )


def write(home: Path, catalogues: Catalogues) -> None:
    """Keep the catalogues in FIFTY_HOME, in one move; nothing where they are the same."""
    document = {name: [step.model_dump() for step in steps] for name, steps in catalogues.items()}
    content = json.dumps(document, indent=1) + "\n"
    file = home / _FILE
    if file.exists() and file.read_text() == content:
        return
    written = file.with_name(f".{_FILE}.{os.getpid()}")
    written.write_text(content)
    written.replace(file)


def read(home: Path, name: str) -> Sequence[StepInfo]:
    """One catalogue's steps as last written; empty where it never was."""
    try:
        content = (home / _FILE).read_bytes()
        catalogues = TypeAdapter(Catalogues).validate_json(content)
    except (FileNotFoundError, ValidationError):
        return ()
    return catalogues.get(name, ())
