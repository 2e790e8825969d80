"""The catalogue of the flows that are served, and the file that is rendered from it."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest
import yaml

import flows
from deployments.served_flows import DEPLOYMENT, PREFECT_FILE, SERVED, Schedule, render


def test_the_file_for_prefect_deploy_is_what_is_rendered() -> None:
    told = "run `python -m deployments.served_flows`"
    assert PREFECT_FILE.read_text() == render(), told


def test_every_flow_is_served_under_its_own_name() -> None:
    found = set()
    for module in pkgutil.iter_modules(flows.__path__):
        function = getattr(importlib.import_module(f"flows.{module.name}"), module.name, None)
        if function is not None:
            found.add(function.name)
    assert {served.name for served in SERVED} == found
    assert len(SERVED) == len(found)
    for served in SERVED:
        assert served.load().name == served.name
        assert served.load().description, served.name


def test_prefect_yaml_names_what_is_there() -> None:
    deployments = yaml.safe_load(PREFECT_FILE.read_text())["deployments"]
    assert {entry["name"] for entry in deployments} == {DEPLOYMENT}
    for entry in deployments:
        module, _dot, function = entry["entrypoint"].rpartition(".")
        assert callable(getattr(importlib.import_module(module), function))
        assert entry["enforce_parameter_schema"] is False


def test_the_list_costs_no_import_of_prefect() -> None:
    code = "import sys, deployments.served_flows; print('prefect' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_schedule_says_when_and_only_once() -> None:
    assert Schedule(every_s=60) != Schedule(cron="0 3 * * *")
    for wrong in ({}, {"every_s": 60, "cron": "0 3 * * *"}):
        with pytest.raises(ValueError, match="either an interval or a cron line"):
            Schedule(**wrong)  # type: ignore[arg-type]
