"""The scheduled flows, each run once against the site: what they do to it, and what they tell."""

from __future__ import annotations

import base64
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from lxml import etree
from playwright.sync_api import Page, expect

from blocks.resources import Image
from tests.cloud import Cloud
from tests.e2e import screen
from tests.prefect_api import api
from tests.service.flow_runs import Ended, attempt, call
from tests.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

#: An image of these tests' own: other VMs of the session keep the old `micro` alive.
AGING = "aging"
LIKE_THIS = ("--image", AGING, "--flavor", "tiny", "--network", "lab")


@pytest.fixture(name="keeper", scope="module")
def _keeper(site_cloud: Cloud) -> Iterator[Cloud]:
    """A VM `keeper` that runs on, whatever becomes of its image."""
    site_cloud.fifty("image", "build", "micro", "--name", AGING)
    site_cloud.fifty("vm", "create", "keeper", *LIKE_THIS)
    yield site_cloud
    if any(vm["name"] == "keeper" for vm in site_cloud.json("vm", "list")):
        site_cloud.fifty("vm", "delete", "keeper")
    site_cloud.fifty("image", "delete", AGING)
    call("clean_cache")


def aging(cloud: Cloud) -> Image:
    """The image of that name, as it is now."""
    tenant = cloud.world.store.tenants.id_of("default")
    return cloud.world.store.images.find(tenant, AGING)


def told(ended: Ended, what: str) -> tuple[int, int]:
    """How many of something were removed, and the bytes that this freed."""
    [row] = [row for row in ended.rows("clean-cache") if row["what"] == what]
    return row["removed"], row["bytes freed"]


def test_an_audit_reports_and_changes_nothing(site_cloud: Cloud) -> None:
    quiet = call("audit")
    assert (quiet.type, quiet.message) == ("COMPLETED", f"nothing is astray on {host(site_cloud)}")
    assert "Nothing is astray" in quiet.artifact("audit")["data"]

    stray = site_cloud.home / "images" / "build" / str(uuid.uuid4())
    stray.mkdir(parents=True)
    try:
        ended = call("audit")
        assert stray.is_dir()
    finally:
        stray.rmdir()
    assert ended.type == "COMPLETED"
    assert ended.message.startswith("1 thing(s) astray on")
    [row] = ended.rows("audit")
    assert (row["kind"], row["name"], row["owner"]) == ("image-build", str(stray), stray.name)
    assert row["age (s)"] >= 0
    assert "nothing that is recorded owns it" in row["why"]

    resource = f"fifty.host.{site_cloud.world.site}.{host(site_cloud)}"
    document = {"filter": {"resource": {"id": [resource]}}}
    [event] = eventually(
        lambda: api("POST", "/events/filter", json=document).json()["events"], "event"
    )
    assert event["event"] == "fifty.audit.astray"
    assert event["payload"]["count"] == 1
    assert event["payload"]["astray"][0]["name"] == str(stray)


def host(cloud: Cloud) -> str:
    return cloud.world.store.host


def test_a_refresh_that_fails_or_is_killed_leaves_the_old_image_and_one_that_does_not_replaces_it(
    keeper: Cloud,
) -> None:
    before = aging(keeper)
    young = call("refresh_images", {"older_than_days": 1, "names": [AGING]})
    assert (young.type, young.message) == ("COMPLETED", "no image is older than 1 days")

    failed = call("refresh_images", {"older_than_days": 0, "names": [AGING]}, fault="3:raise")
    assert failed.type == "FAILED"
    assert "0 of 1 image(s) built anew; not aging" in failed.message
    assert failed.rows("refreshed-images")[0]["now"] == "as it was"
    assert aging(keeper) == before

    killed = attempt("refresh_images", {"older_than_days": 0, "names": [AGING]}, fault="3:kill")
    assert killed.returncode == -9
    assert aging(keeper) == before
    assert call("reconcile").type == "COMPLETED"

    after = aging(keeper)
    assert after.id != before.id
    assert after.status == "active"
    assert Path(after.path).is_file()
    retired = keeper.world.store.images.get(before.id)
    assert (retired.status, retired.name) == ("deactivated", f"{AGING}.{before.id[:8]}")
    listed = {image["name"] for image in keeper.json("image", "list")}
    assert AGING in listed
    assert retired.name not in listed
    shown = {image["name"] for image in keeper.json("image", "list", "--replaced")}
    assert shown == {*listed, retired.name}
    # Nothing new is made from it, and what was made from it runs on.
    refusal = keeper.json(
        *("vm", "create", "late", "--image", retired.name, "--network", "lab"), code=1
    )
    assert "deactivated" in refusal["message"]
    assert keeper.ssh("keeper", "hostname").strip() == "keeper"


def test_what_nobody_needs_is_removed_and_what_somebody_needs_is_not(keeper: Cloud) -> None:
    images, build = keeper.world.store.images, keeper.build("keeper")
    checkpoints = keeper.home / "checkpoints"
    assert list(checkpoints.glob(f"{build.id}-*"))
    retired = images.get(keeper.instance("keeper").image_id)
    if retired.status == "active":  # where this test runs alone
        keeper.fifty("image", "build", "micro", "--name", AGING, "--rebuild")
        retired = images.get(retired.id)
    base = keeper.world.images.cached(retired)
    old_run = upkeep_run()

    first = call("clean_cache")
    assert first.type == "COMPLETED"
    assert told(first, "replaced images")[0] == 0
    assert base.is_file()
    assert Path(retired.path).is_file()
    assert list(checkpoints.glob(f"{build.id}-*"))
    assert api("GET", f"/flow_runs/{old_run}").ok

    keeper.fifty("vm", "delete", "keeper")
    size = Path(retired.path).stat().st_blocks * 512
    second = call("clean_cache", {"checkpoints_days": 0, "runs_days": 0})
    assert told(second, "replaced images") == (1, size)
    removed, freed = told(second, "bases in this host's cache")
    assert removed == 1
    assert freed > 0
    assert told(second, "checkpoints")[0] > 0
    assert re.match(r"\d+\.\d MiB freed; [1-9]\d* old run\(s\) deleted", second.message)
    assert not base.exists()
    assert not Path(retired.path).exists()
    assert keeper.json("image", "list", "--replaced") == keeper.json("image", "list")
    assert not list(checkpoints.glob(f"{build.id}-*"))
    assert api("GET", f"/flow_runs/{old_run}").status_code == 404
    assert call("audit").message.startswith("nothing is astray")


def upkeep_run() -> str:
    """A run of the scheduled upkeep that has ended."""
    flow = api("GET", "/flows/name/audit").json()["id"]
    run = {"flow_id": flow, "tags": ["upkeep"], "state": {"type": "COMPLETED"}}
    return str(api("POST", "/flow_runs/", json=run).json()["id"])


@pytest.fixture
def page() -> Iterator[Page]:
    """A browser."""
    with screen.browser() as page:
        yield page


def test_figures_of_the_builds_are_told_and_drawn(
    keeper: Cloud, page: Page, tmp_path: Path
) -> None:
    # `keeper` has gone by now, where these tests run one after the other: it counts all the same.
    figures = keeper.json("stats", "--last", "10000")
    assert figures["ended"]["complete"] == figures["completed"] >= 1
    assert [step["step"] for step in figures["steps"]] == list(range(1, 51))
    assert {step["builds"] for step in figures["steps"]} == {figures["completed"]}
    ranked = sorted(figures["steps"], key=lambda step: (-step["median_s"], step["step"]))
    assert figures["slowest"] == [step["step"] for step in ranked[:5]]
    assert keeper.json("stats", "--last", "1")["completed"] == 1
    assert [clock["clock"] for clock in figures["clocks"]] == ["running_s", "booted_s", "login_s"]

    ended = call("report_stats", {"last": 1})
    assert ended.message == "the last 1 build(s)"
    artifact = ended.artifact("build-stats")
    [drawn] = re.findall(r"data:image/svg\+xml;base64,([\w+/=]+)", artifact["data"])
    texts = [text.text for text in etree.fromstring(base64.b64decode(drawn)).iter()]
    assert [text for text in texts if text and re.match(r"\d\d [A-Z]", text)] == [
        f"{step['number']:02d} {step['title']}" for step in keeper.json("steps")
    ]
    page.goto(f"{keeper.api_url.removesuffix('/api')}/artifacts/artifact/{artifact['id']}")
    chart = page.locator("img[alt^='Median and 95th percentile']")
    expect(chart).to_be_visible()
    assert chart.evaluate("image => image.naturalWidth") > 500
    expect(page.locator("table").last.locator("tbody tr")).to_have_count(50)
    page.screenshot(path=Path(os.environ.get("PICTURES", tmp_path)) / "stats.png", full_page=True)


def test_wrong_parameters_are_all_told_at_once() -> None:
    ended = call("clean_cache", {"checkpoints_days": -1, "runs_days": "many", "more": 1})
    assert (ended.type, ended.name) == ("FAILED", "Refused")
    for field in ("checkpoints_days", "runs_days", "more"):
        assert field in ended.message
