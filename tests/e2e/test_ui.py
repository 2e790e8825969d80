"""What a person sees of a build: in the Prefect UI, and on the terminal.

The pictures of README are made here; this renews them:
`PICTURES=deployments/pictures tests/run tests/e2e/test_ui.py`
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.cloud import Cloud
from tests.e2e import screen
from tests.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

LIKE_THIS = ("--image", "micro", "--flavor", "tiny", "--network", "lab")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where the pictures go."""
    return Path(os.environ.get("PICTURES", tmp_path))


@pytest.fixture
def page() -> Iterator[Page]:
    """A browser."""
    with screen.browser() as page:
        yield page


@pytest.fixture
def titles(site_cloud: Cloud) -> list[str]:
    """The fifty, as the UI names them."""
    return [f"{s['number']:02d} · {s['title']}" for s in site_cloud.json("steps")]


def open_run(page: Page, cloud: Cloud, name: str) -> None:
    """Open a VM's run; the task runs reach the API as events, a while after the fact."""
    run = cloud.json("vm", "show", name)["flow_run_id"]
    page.goto(f"{cloud.api_url.removesuffix('/api')}/runs/flow-run/{run}")
    expect(page.get_by_text(f"create-vm {name}")).to_be_visible()


def open_tab(page: Page, name: str) -> None:
    page.get_by_text(name, exact=True).first.click()


def open_artifact(page: Page, key: str) -> None:
    """Open an artifact from the run's tab."""
    open_tab(page, "Artifacts")
    page.get_by_text(key, exact=True).last.click()
    page.wait_for_url("**/artifacts/artifact/*")


def test_the_ui_asks_for_the_password(site_cloud: Cloud) -> None:
    base = site_cloud.api_url.removesuffix("/api")
    with screen.browser(logged_in=False) as page:
        page.goto(f"{base}/runs")
        page.wait_for_url("**/login**")
        field = page.locator("input[type=password]")
        field.fill("fifty:wrong")
        field.press("Enter")
        expect(page.get_by_text("Authentication failed.").first).to_be_visible()
        field.fill(os.environ["PREFECT_API_AUTH_STRING"])
        field.press("Enter")
        page.wait_for_url("**/runs**")
        expect(page.get_by_text("create-network lab").first).to_be_visible()


def test_a_run_shows_its_fifty_steps_and_its_summary(
    specimen: Cloud, page: Page, titles: list[str], pictures: Path
) -> None:
    open_run(page, specimen, "specimen")
    expect(page.get_by_text("50 Task runs")).to_be_visible()
    open_tab(page, "Task Runs")
    eventually(lambda: sorted(screen.labels(page)) == titles, "list of the fifty task runs")
    page.screenshot(path=pictures / "run.png")

    open_artifact(page, "vm-specimen-summary")
    expect(page.get_by_role("heading", name="specimen: complete")).to_be_visible()
    rows = page.locator("table").last.locator("tbody tr")
    expect(rows).to_have_count(50)
    shown = [row.locator("td").all_inner_texts() for row in rows.all()]
    assert [cells[0] for cells in shown] == titles
    assert {cells[1] for cells in shown} == {"✔ done"}
    assert all(re.fullmatch(r"\d+\.\d{3}", cells[2]) and cells[3] == "1" for cells in shown)
    clocks = page.locator("table").first.inner_text()
    assert re.search(r"to running\s+to booted\s+to login", clocks), clocks
    assert len(re.findall(r"\d+\.\d s", clocks)) == 3, clocks
    assert re.search(r"^qemu-img create .+-F qcow2", page.inner_text("body"), re.MULTILINE)
    page.screenshot(path=pictures / "summary.png")


def test_a_failure_is_told_in_plain_words_with_what_was_undone(
    cloud: Cloud, page: Page, pictures: Path
) -> None:
    cloud.fifty("vm", "create", "fails", *LIKE_THIS, fault="46:raise", code=1)
    open_run(page, cloud, "fails")
    expect(page.get_by_text("RolledBack").first).to_be_visible()
    open_tab(page, "Task Runs")
    eventually(
        lambda: (
            {"46 · Let the guest run", "undo 36 · Plug the tap device"} <= set(screen.labels(page))
        ),
        "task runs of the failing step and of the undo",
    )
    open_artifact(page, "vm-fails-summary")
    expect(page.get_by_text("Stopped at step 46 · Let the guest run.")).to_be_visible()
    expect(page.get_by_role("heading", name="fails: undone, nothing of it is left")).to_be_visible()
    rows = page.locator("table").last.locator("tbody tr")
    shown = [row.locator("td").all_inner_texts() for row in rows.all()]
    states = {cells[0][:2]: cells[1] for cells in shown}
    assert (states["36"], states["46"], states["47"]) == ("↶ undone", "✘ failed", "·")
    page.screenshot(path=pictures / "failure.png")


def test_the_steps_are_drawn_on_the_terminal_and_progress_in_the_ui(
    cloud: Cloud, page: Page, titles: list[str], pictures: Path, tmp_path: Path
) -> None:
    with screen.Terminal(tmp_path / "tmux") as terminal:
        terminal.run(
            "fifty", "vm", "create", "drawn", *LIKE_THIS, variables={"FIFTY_FAULT": "47:hang"}
        )
        eventually(lambda: "▶ 47 Watch the boot" in terminal.text(), "step 47 at work")
        open_run(page, cloud, "drawn")
        open_artifact(page, "vm-drawn-progress")
        told = "drawn: 46 of 50 steps; now 47 · Watch the boot"
        expect(page.get_by_text(told)).to_be_visible()
    cloud.fifty("vm", "resume", "drawn")
    with screen.Terminal(tmp_path / "tmux") as terminal:
        terminal.run("fifty", "vm", "create", "web", *LIKE_THIS, "--volume", "1")
        eventually(lambda: "web is ACTIVE" in terminal.text(), "VM on the terminal")
        shown = terminal.text()
        for title in titles:
            number, _dot, words = title.partition(" · ")
            assert re.search(rf"✔ {number} {re.escape(words)} +\d", shown), title
        eventually(lambda: "run " in terminal.text(), "last line")
        terminal.picture(page, pictures / "terminal.png")
