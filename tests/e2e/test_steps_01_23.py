"""Steps 1 to 23, each by what it left in the world: Prefect, the state store, the host."""

from __future__ import annotations

import json
import re
import subprocess
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterId
from prefect.events.filters import EventFilter, EventNameFilter

from tests.cloud import Cloud
from tests.prefect_api import api

pytestmark = pytest.mark.e2e

NAME = "specimen"


def test_01_the_caller_is_the_tenant_of_the_token(specimen: Cloud) -> None:
    caller = specimen.build(NAME).plan["caller"]
    assert caller["tenant_id"] == specimen.world.store.tenants.id_of("default")
    assert specimen.build(NAME).tenant_id == caller["tenant_id"]


def test_02_a_slot_of_the_tenants_rate_limit_was_taken(specimen: Cloud) -> None:
    with get_client(sync_client=True) as client:
        limit = client.read_global_concurrency_limit_by_name("fifty-requests-default")
    assert limit.slot_decay_per_second > 0
    assert specimen.journal(specimen.build(NAME))[2].state == "done"


def test_02_a_request_takes_one_slot_however_often_the_step_is_tried(cloud: Cloud) -> None:
    path = "/v2/concurrency_limits/fifty-requests-default"
    limit = api("GET", path).json()
    narrow = {"limit": 1, "active_slots": 0, "slot_decay_per_second": 0.001}
    assert api("PATCH", path, json=narrow).ok
    try:
        words = ("vm", "create", "one-slot", "--image", "micro", "--network", "lab")
        refusal = cloud.json(*words, fault="2:flake:after,3:raise", code=1)
        assert refusal["error"] == "InjectedFault"
        assert cloud.json(*words, code=1)["error"] == "RateLimited"
    finally:
        api("PATCH", path, json={name: limit[name] for name in narrow})


def test_03_the_role_is_one_that_may_create(specimen: Cloud) -> None:
    assert specimen.build(NAME).plan["caller"]["role"] in ("member", "admin")


def test_04_the_recorded_request_is_valid_and_whole(specimen: Cloud) -> None:
    request = specimen.build(NAME).request
    assert request["name"] == NAME
    assert [file["path"] for file in request["inject"]] == ["/etc/injected"]


def test_05_the_instance_keeps_its_own_copy_of_the_flavor(specimen: Cloud) -> None:
    flavor = specimen.instance(NAME).flavor
    assert (flavor.name, flavor.disk_gib, flavor.limits.cpu_shares) == ("limited", 2, 512)


def test_06_the_image_is_the_one_that_was_named(specimen: Cloud) -> None:
    image = specimen.world.store.images.get(specimen.instance(NAME).image_id)
    assert (image.name, image.status) == ("micro", "active")


def test_07_each_port_is_in_the_network_that_was_named_in_order(specimen: Cloud) -> None:
    networks = [specimen.world.store.networks.get(p.network_id) for p in specimen.ports(NAME)]
    assert [network.name for network in networks] == ["lab", "side"]


def test_08_the_guest_has_the_key_pair(specimen: Cloud) -> None:
    public = (specimen.home / "keys" / "default.pub").read_text().split()[1]
    assert public in specimen.ssh(NAME, "cat /root/.ssh/authorized_keys")


def test_09_quota_is_held_for_all_that_it_has(specimen: Cloud) -> None:
    held = specimen.world.store.quota.held(specimen.instance(NAME).id)
    amounts = {resource: amount for resource, (amount, _committed) in held.items()}
    assert amounts == {
        "instances": 1,
        "cores": 1,
        "ram_mib": 256,
        "ports": 2,
        "volumes": 1,
        "gigabytes": 1,
    }


def test_10_the_instance_is_recorded_under_the_builds_id(specimen: Cloud) -> None:
    document = specimen.json("vm", "show", NAME)
    assert document["id"] == specimen.build(NAME).id
    assert document["request_id"] == specimen.build(NAME).request_id


def test_11_an_event_and_a_progress_artifact_tell_of_the_build(specimen: Cloud) -> None:
    artifact = UUID(specimen.build(NAME).plan["progress_artifact"])
    with get_client(sync_client=True) as client:
        [found] = client.read_artifacts(
            artifact_filter=ArtifactFilter(id=ArtifactFilterId(any_=[artifact]))
        )
        events = client.read_events(
            EventFilter(event=EventNameFilter(name=["fifty.vm.build.requested"])), limit=50
        ).events
    assert found.type == "progress"
    assert float(str(found.data)) == 100.0
    assert f"fifty.vm.{specimen.instance(NAME).id}" in [event.resource.id for event in events]


def test_12_the_host_reported_what_libvirt_says_of_it(specimen: Cloud) -> None:
    [host] = specimen.world.store.hosts.list()
    said = subprocess.run(
        ["virsh", "-c", "qemu:///system", "nodeinfo"], capture_output=True, text=True, check=True
    ).stdout
    assert re.search(rf"CPU\(s\):\s+{host.vcpus}\n", said)
    memory = re.search(r"Memory size:\s+(\d+) KiB", said)
    # Not to the MiB: a machine that is itself a guest has a balloon.
    assert memory and 0.5 < host.ram_mib * 1024 / int(memory[1]) < 2
    assert host.heartbeat_at is not None


def test_13_the_hosts_that_passed_are_kept_with_those_refused(specimen: Cloud) -> None:
    plan = specimen.build(NAME).plan
    assert plan["passed"] == [specimen.world.store.host]
    assert plan["refused"] == []


def test_14_the_weights_are_kept(specimen: Cloud) -> None:
    assert [name for name, _ in specimen.build(NAME).plan["weights"]] == [specimen.world.store.host]


def test_15_the_heaviest_host_was_selected(specimen: Cloud) -> None:
    plan = specimen.build(NAME).plan
    assert plan["hosts"] == [plan["weights"][0][0]]


def test_16_the_build_was_dispatched_to_its_host(specimen: Cloud) -> None:
    plan = specimen.build(NAME).plan
    assert plan["dispatched_at"]
    assert specimen.instance(NAME).host == plan["host"]


def test_17_the_claim_counts_against_the_host(specimen: Cloud) -> None:
    claim = specimen.world.store.hosts.claim_of(specimen.instance(NAME).id)
    assert claim == {"host": specimen.world.store.host, "vcpus": 1, "ram_mib": 256, "disk_gib": 3}


def test_18_every_network_was_one_that_this_kernel_can_do(specimen: Cloud) -> None:
    assert specimen.journal(specimen.build(NAME))[18].state == "done"
    for port in specimen.ports(NAME):
        specimen.world.fabric.check(specimen.world.store.networks.get(port.network_id))


def test_19_the_live_domain_has_the_recorded_macs(specimen: Cloud) -> None:
    xml = specimen.world.hypervisor.definition(specimen.instance(NAME).id) or ""
    macs = re.findall(r"<mac address=['\"]([0-9a-f:]+)", xml)
    assert macs == [port.mac for port in specimen.ports(NAME)]
    assert all(mac.startswith("fa:16:3e:") for mac in macs)


def test_20_the_guest_got_the_mtu_and_router_that_dhcp_was_to_tell(specimen: Cloud) -> None:
    [lab, _side] = specimen.build(NAME).plan["dhcp"]
    assert lab["mtu"] == 1450
    assert specimen.ssh(NAME, "cat /sys/class/net/eth0/mtu").strip() == "1450"
    assert f"default via {lab['router']}" in specimen.ssh(NAME, "ip route")


def test_21_the_guest_has_the_fixed_address_asked_for(specimen: Cloud) -> None:
    assert "10.77.1.77/24" in specimen.ssh(NAME, "ip -4 address show dev eth0")
    [lab, _side] = specimen.ports(NAME)
    assert [str(fixed.address) for fixed in lab.addresses] == ["10.77.1.77"]


def test_22_the_ports_are_in_the_default_group(specimen: Cloud) -> None:
    [default] = specimen.world.store.groups.list(specimen.instance(NAME).tenant_id)
    assert {port.security_groups for port in specimen.ports(NAME)} == {(default.id,)}


def test_23_the_port_object_holds_everything_that_was_made_later(specimen: Cloud) -> None:
    kept = specimen.build(NAME).plan["ports"]
    assert kept == [json.loads(port.model_dump_json()) for port in specimen.ports(NAME)]
    assert all(port["mac"] and port["tap"] and port["host"] for port in kept)
