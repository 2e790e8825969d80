"""The pages of the Prefect UI, as an operator uses them."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from tests.service.served import ask
from tests.waiting import eventually

#: As wide as README shows a picture, beside the menu, which is not in it.
_WIDTH, _HEIGHT, _MENU = 1180, 980, 258
_AT_WORK = ("Pending", "Running")
_LISTED = """() => [...document.querySelectorAll(".state-list-item")].flatMap(item => {
    const link = item.querySelector("a[href*='/runs/task-run/']")
    const badge = item.querySelector(".state-badge")
    return link && badge ? [[link.href, link.innerText.trim(), badge.innerText.trim()]] : []
})"""


class Pages:
    """One browser window on the UI.

    Args:
        page: The browser's.
        url: Where the UI is.
    """

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self._url = url
        page.set_viewport_size({"width": _WIDTH, "height": _HEIGHT})

    def open(self, path: str) -> None:
        """Go to a page of the UI."""
        self.page.goto(f"{self._url}/{path}")

    def log_in(self, auth: str) -> None:
        """Type a password into the page that asks for it."""
        field = self.page.locator("input[type=password]")
        field.fill(auth)
        field.press("Enter")

    def custom_run(self, deployment: str) -> None:
        """Go to the form of a deployment, as one does it: by its page's button."""
        found = ask("GET", f"/deployments/name/{deployment}/fifty")
        self.open(f"deployments/deployment/{found['id']}")
        self.page.get_by_role("button", name="Run", exact=True).click()
        self.page.get_by_text("Custom run").click()
        expect(self.field("request")).to_be_visible()

    def titles(self) -> list[str]:
        """The titles of the form's fields, in order."""
        return self.page.locator(".schema-form-property__label").all_inner_texts()

    def field(self, title: str) -> Locator:
        """A field of the form."""
        label = self.page.locator(".schema-form-property__label")
        exact = re.compile(rf"^{re.escape(title)}( \(Optional\))?$")
        return self.page.locator(".schema-form-property", has=label.filter(has_text=exact)).last

    def fill(self, title: str, value: str) -> None:
        """Type a value into a field."""
        self.field(title).locator("textarea, input").first.fill(value)

    def add(self, title: str, *values: str) -> None:
        """Add items to a list."""
        field = self.field(title)
        for value in values:
            there = field.locator("textarea, input").count()
            field.get_by_role("button", name="Add item").click()
            field.locator("textarea, input").nth(there).fill(value)

    def submit(self) -> str:
        """Submit the form; the run's id."""
        with self.page.expect_response("**/create_flow_run") as answer:
            self.page.get_by_role("button", name="Submit").click()
        return str(answer.value.json()["id"])

    def open_run(self, run: str) -> None:
        """Go to a flow run's page."""
        self.open(f"runs/flow-run/{run}")
        expect(self.page.get_by_role("tablist")).to_be_visible()

    def tab(self, name: str) -> None:
        """Open a tab of the run's page."""
        self.page.get_by_role("tablist").get_by_text(name, exact=True).click()

    def confirm(self, button: str, sure: str) -> None:
        """Press a button of the run's page, and say that one is sure."""
        self.page.get_by_role("button", name=button).click()
        self.page.get_by_role("dialog").get_by_role("button", name=sure).click()

    def has_state(self, name: str) -> None:
        """Wait until the run's page shows this state."""
        expect(self.page.locator(".state-badge").first).to_have_text(name)

    def tags(self) -> set[str]:
        """The tags that the run's page shows."""
        return set(self.page.locator(".p-tag").all_inner_texts())

    def task_runs(self, count: int, *, running: int = 0) -> list[tuple[str, str]]:
        """The run's task runs with their states; up to 50, the oldest first.

        More are not in the page at once, and come in the order in which they were scrolled to.
        They reach the API as events, a while after the fact.

        Args:
            count: How many there must be.
            running: How many of them must be running still.
        """
        self.tab("Task Runs")
        found: dict[str, tuple[str, str]] = {}

        def shown() -> bool:
            before = list(found.items())
            found.clear()
            # Only those near the window are in the page.
            for key in ("Home", "PageDown", "End"):
                self.page.keyboard.press(key)
                for link, label, state in self.page.evaluate(_LISTED):
                    found[link] = (label, state)
            at_work = [state for _label, state in found.values() if state in _AT_WORK]
            # Whatever came in between two looks is not where it belongs.
            same = list(found.items()) == before
            return same and len(found) >= count and len(at_work) == running

        eventually(shown, f"list of {count} task runs")
        self.page.keyboard.press("Home")
        return list(found.values())[::-1]

    def artifact(self, key: str) -> None:
        """Open an artifact from the run's tab."""
        self.tab("Artifacts")
        self.page.get_by_text(key, exact=True).last.click()
        self.page.wait_for_url("**/artifacts/artifact/*")

    def again(self) -> str:
        """Load the page anew, as artifacts do not follow what happens; its text."""
        self.page.reload()
        expect(self.page.get_by_role("tablist")).to_be_visible()
        return self.page.inner_text("body")

    def rows(self) -> list[list[str]]:
        """The cells of the last table on the page."""
        rows = self.page.locator("table").last.locator("tbody tr")
        expect(rows.first).to_be_visible()
        return [row.locator("td").all_inner_texts() for row in rows.all()]

    def picture_of(self, what: Locator, file: Path) -> None:
        """Write a part of the page, however long."""
        self.page.set_viewport_size({"width": _WIDTH, "height": 2 * _HEIGHT})
        what.screenshot(path=file)
        self.page.set_viewport_size({"width": _WIDTH, "height": _HEIGHT})

    def picture(self, file: Path, height: int = _HEIGHT) -> None:
        """Write what is on the page, without the menu."""
        self.page.set_viewport_size({"width": _WIDTH, "height": height})
        self.page.mouse.move(0, 0)
        self.page.evaluate("document.activeElement?.blur()")
        width = _WIDTH - _MENU
        self.page.screenshot(path=file, clip={"x": _MENU, "y": 0, "width": width, "height": height})
        self.page.set_viewport_size({"width": _WIDTH, "height": _HEIGHT})
