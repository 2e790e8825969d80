"""Fifty Steps as an operator has it: the Prefect UI in a browser, from the form to the ends.

README's pictures of the UI are made here; this renews them:
`PICTURES=deployments/pictures tests/run tests/service/test_ui.py`
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.cloud import Cloud
from tests.e2e import screen
from tests.inventory import differences
from tests.prefect_api import api
from tests.service.pages import Pages
from tests.service.served import Served, ask
from tests.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

FIELDS = [
    *("Name", "Image", "Flavor", "Networks", "Fixed IP", "Volumes", "SSH key", "Security groups"),
    *("User data", "User data from a secret", "Files", "When a step fails"),
    *("When its process is killed", "Host", "Zone", "Same host as", "Other host than"),
    *("Floating IP", "Request id", "Credentials"),
]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where the pictures go."""
    return Path(os.environ.get("PICTURES", tmp_path))


@pytest.fixture(scope="module")
def ui(served: Served) -> Iterator[Pages]:
    """The UI in a browser, logged in."""
    with screen.browser() as page:
        yield Pages(page, served.cloud.api_url.removesuffix("/api"))


@pytest.fixture(scope="module")
def titles(served: Served) -> list[str]:
    """The fifty, as the UI names them."""
    return [f"{s['number']:02d} · {s['title']}" for s in served.cloud.json("steps")]


@contextmanager
def broken(fault: str) -> Iterator[None]:
    """Every build fails as long as this lasts: a cause that goes away."""
    found = ask("GET", "/deployments/name/create-vm/fifty")

    def set_variables(variables: dict[str, object]) -> None:
        answer = api("PATCH", f"/deployments/{found['id']}", json={"job_variables": variables})
        assert answer.ok, answer.text

    set_variables({"env": {"FIFTY_FAULT": fault}})
    try:
        yield
    finally:
        set_variables({})


def numbers(shown: list[tuple[str, str]]) -> list[int]:
    """The numbers of steps, as listed; undos left out."""
    return [int(label[:2]) for label, _state in shown if not label.startswith("undo")]


def test_the_ui_asks_for_the_password(served: Served) -> None:
    with screen.browser(logged_in=False) as page:
        ui = Pages(page, served.cloud.api_url.removesuffix("/api"))
        ui.open("deployments")
        page.wait_for_url("**/login**")
        ui.log_in("fifty:wrong")
        expect(page.get_by_text("Authentication failed.").first).to_be_visible()
        ui.log_in(os.environ["PREFECT_API_AUTH_STRING"])
        page.wait_for_url("**/deployments**")
        expect(page.get_by_text("create-vm").first).to_be_visible()


def test_a_vm_is_made_with_the_form(
    cloud: Cloud, served: Served, ui: Pages, titles: list[str], pictures: Path
) -> None:
    ui.custom_run("create-vm")
    assert [title.removesuffix(" (Optional)") for title in ui.titles()] == ["request", *FIELDS]
    assert "None" not in ui.field("request").inner_text()
    expect(ui.field("Flavor").locator("textarea")).to_have_value("tiny")
    expect(ui.field("SSH key").locator("textarea")).to_have_value("default")
    expect(ui.field("When a step fails").get_by_role("button", name="rollback")).to_be_visible()
    ui.fill("Name", "web")
    ui.fill("Image", "micro")
    ui.add("Networks", "lab", "side")
    ui.add("Volumes", "1")
    ui.add("Files", "/etc/motd")
    ui.fill("Content", "aGVsbG8K")
    expect(ui.field("Mode").locator("textarea")).to_have_value("0644")
    ui.page.mouse.wheel(0, -10_000)
    ui.picture(pictures / "form.png")

    ui.open_run(ui.submit())
    expect(ui.page.get_by_text("create-vm web").first).to_be_visible()
    ui.has_state("Completed")
    assert {"tenant:default", "vm:web", f"host:{cloud.world.store.host}"} <= ui.tags()
    shown = ui.task_runs(50)
    assert sorted(shown) == [(title, "Completed") for title in titles]
    order = numbers(shown)
    assert (order[:23], order[-10:]) == ([*range(1, 24)], [*range(41, 51)])
    for branch in (range(24, 31), range(31, 39), range(39, 41)):
        assert [number for number in order if number in branch] == [*branch]

    ui.artifact("vm-web-summary")
    expect(ui.page.get_by_role("heading", name="web: complete")).to_be_visible()
    rows = ui.rows()
    assert [(cells[0], cells[1]) for cells in rows] == [(title, "✔ done") for title in titles]
    assert all(re.fullmatch(r"\d+\.\d{3}", cells[2]) and cells[3] == "1" for cells in rows)
    clocks = ui.page.locator("table").first.inner_text()
    assert re.search(r"running\s+booted\s+login", clocks), clocks
    assert len(re.findall(r"\d+\.\d s", clocks)) == 3, clocks
    assert re.search(r"^qemu-img create .+-F qcow2", ui.page.inner_text("body"), re.MULTILINE)
    ui.picture(pictures / "summary.png", height=1300)

    assert cloud.json("vm", "show", "web")["status"] == "ACTIVE"
    assert cloud.ssh("web", "cat /etc/motd").strip() == "hello"
    _is_drawn(cloud, served, ui, pictures)


def _is_drawn(cloud: Cloud, served: Served, ui: Pages, pictures: Path) -> None:
    """`web` is in the picture of the tenant's networks, which is not drawn twice."""

    def reconciled() -> bool:
        # The scheduled one may be at it: then this one is cancelled.
        return bool(served.end_of(served.post("reconcile", {}))["type"] == "COMPLETED")

    for _twice in range(2):
        eventually(reconciled, "reconcile")
    of_web = {port["address"] for port in cloud.json("vm", "show", "web")["addresses"]}
    wanted = {"artifacts": {"key": {"any_": ["topology-default"]}}}
    found = ask("POST", "/artifacts/filter", json=wanted)
    with_web = [one for one in found if all(address in one["data"] for address in of_web)]
    assert len(with_web) == 1
    ui.open(f"v2/artifacts/artifact/{with_web[0]['id']}")
    drawn = ui.page.locator("svg[aria-roledescription=flowchart-v2]")
    for word in ("outside", "external", "gate", "lab", "side", "web", *of_web):
        # Not anywhere in the drawing: its style sheet speaks of labels, too.
        expect(drawn.locator("p", has_text=word).first).to_be_visible()
    ui.picture_of(drawn, pictures / "topology.png")


def test_what_is_wrong_with_a_form_is_told_at_once(cloud: Cloud, ui: Pages) -> None:
    before = cloud.inventory()
    ui.custom_run("create-vm")
    ui.fill("Name", "No Name")
    ui.fill("Image", "none")
    ui.add("Networks", "nowhere")
    ui.fill("Fixed IP", "10.0.0.999")
    ui.open_run(ui.submit())
    ui.has_state("Refused")
    wrong = ("No Name", "none", "nowhere", "10.0.0.999")
    ui.tab("Details")
    ui.page.get_by_text("See More").click()
    expect(ui.page.get_by_text("10.0.0.999").last).to_be_visible()
    said = ui.page.inner_text("body")
    assert [word for word in wrong if word not in said] == []
    ui.page.keyboard.press("Escape")
    ui.artifact("vm-no-name-summary")
    heading = "(no name): refused, nothing was changed"
    expect(ui.page.get_by_role("heading", name=heading)).to_be_visible()
    shown = ui.page.inner_text("body")
    assert [word for word in wrong if word not in shown] == []
    assert "name: must be lower-case letters, digits and hyphens" in shown
    assert differences(before, cloud.inventory()) == []


def test_progress_is_shown_and_cancel_undoes_a_build(
    cloud: Cloud, served: Served, ui: Pages, titles: list[str], pictures: Path
) -> None:
    before = cloud.inventory()
    run = served.create("db", fault="45:hang")
    ui.open_run(run)
    ui.has_state("Running")
    ui.artifact("vm-db-progress")
    told = "db: 44 of 50 steps; now 45 · Wait for the port to be plugged"
    eventually(lambda: told in ui.again(), "progress up to step 45")
    ui.open_run(run)
    shown = ui.task_runs(45, running=1)
    assert sorted(shown) == [
        *((title, "Completed") for title in titles[:44]),
        (titles[44], "Running"),
    ]
    ui.picture(pictures / "run.png")

    ui.confirm("Cancel", "Confirm")
    ui.has_state("Cancelled")
    assert differences(before, cloud.inventory()) == []
    ui.open_run(run)
    made = [44, 42, 40, 39, 37, 36, 35, 34, 33, 32, 31, 30, 29, 27, 25, 23, 21, 19, 17, 10, 9]
    shown = ui.task_runs(45 + len(made))
    undone = [(label[5:7], state) for label, state in shown if label.startswith("undo")]
    assert sorted(undone) == sorted((f"{number:02d}", "Completed") for number in made)
    ui.artifact("vm-db-summary")
    heading = "db: undone, nothing of it is left on the host"
    expect(ui.page.get_by_role("heading", name=heading)).to_be_visible()


def test_retry_goes_on_at_the_step_that_failed(
    cloud: Cloud, served: Served, ui: Pages, titles: list[str]
) -> None:
    with broken("45:raise"):
        run = served.create("api", on_failure="keep")
        ui.open_run(run)
        ui.has_state("Kept")
    ui.artifact("vm-api-summary")
    expect(ui.page.get_by_text("Retry of this run")).to_be_visible()
    domain = cloud.json("vm", "show", "api")["id"]
    ui.open_run(run)
    ui.confirm("Retry", "Retry")
    ui.has_state("Completed")
    first = [*((title, "Completed") for title in titles[:44]), (titles[44], "Failed")]
    again = [(title, "Cached") for title in titles[:44]]
    again += [(title, "Completed") for title in titles[44:]]
    assert sorted(ui.task_runs(45 + 50)) == sorted([*first, *again])
    vm = cloud.json("vm", "show", "api")
    assert (vm["status"], vm["id"], vm["generation"]) == ("ACTIVE", domain, 1)


def test_a_failure_is_told_in_plain_words_with_what_is_left(
    cloud: Cloud, served: Served, ui: Pages, pictures: Path
) -> None:
    before = cloud.inventory()
    run = served.create("mail", fault="46:raise,u36:raise")
    ui.open_run(run)
    ui.has_state("NeedsAttention")
    shown = dict(ui.task_runs(46))
    assert shown["46 · Let the guest run"] == "Failed"
    assert shown["undo 36 · Plug the tap device"] == "Failed"
    assert shown["undo 44 · Start the domain paused"] == "Completed"
    ui.artifact("vm-mail-summary")
    expect(ui.page.get_by_role("heading", name="mail: needs attention")).to_be_visible()
    expect(ui.page.get_by_text("Stopped at step 46 · Let the guest run.")).to_be_visible()
    expect(ui.page.get_by_text("step 36 · Plug the tap device: injected fault")).to_be_visible()
    states = {cells[0][:2]: cells[1] for cells in ui.rows()}
    assert states["36"] == "‼ undo failed"
    assert (states["44"], states["46"], states["47"]) == ("↶ undone", "✘ failed", "·")
    ui.picture(pictures / "failure.png")

    ui.custom_run("rollback-vm")
    ui.fill("Name", "mail")
    ui.open_run(ui.submit())
    ui.has_state("Completed")
    assert differences(before, cloud.inventory()) == []
