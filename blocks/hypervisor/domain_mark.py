"""Our mark on a domain: an element in libvirt's metadata, and how it is read back."""

from __future__ import annotations

from collections.abc import Sequence

import libvirt
from lxml import etree

from blocks.marks import DOMAIN_METADATA_URI

#: The element that keeps the ports' rate, for the next start.
_RATE_URI = "urn:fifty-steps:rate:1"


def mark_of(domain: libvirt.virDomain) -> dict[str, str]:
    """The attributes of our element in a domain's metadata; empty where there is none."""
    try:
        text = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, DOMAIN_METADATA_URI, 0)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_METADATA:
            return {}
        raise
    return _attributes(etree.fromstring(text))


def mark_of_xml(xml: etree._Element) -> dict[str, str]:
    """The same, of a definition that libvirt has not seen yet."""
    element = xml.find(f"metadata/{{{DOMAIN_METADATA_URI}}}instance")
    return {} if element is None else _attributes(element)


def _attributes(element: etree._Element) -> dict[str, str]:
    return {str(key): str(value) for key, value in element.attrib.items()}


def rate_of(domain: libvirt.virDomain) -> int | None:
    """The rate of a domain's ports, KiB a second, that is kept with it."""
    try:
        text = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, _RATE_URI, 0)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_METADATA:
            return None
        raise
    return int(etree.fromstring(text).get("kib-s", "0")) or None


def keep_rate(domain: libvirt.virDomain, kib_s: int, layers: Sequence[int]) -> None:
    """Keep the rate of a domain's ports with it.

    Args:
        domain: The domain.
        kib_s: KiB a second.
        layers: Where: libvirt's flags for the live and the persistent definition.
    """
    element = etree.Element("ports", {"kib-s": str(kib_s)})
    for flags in layers:
        domain.setMetadata(
            libvirt.VIR_DOMAIN_METADATA_ELEMENT,
            etree.tostring(element, encoding="unicode"),
            "fifty-rate",
            _RATE_URI,
            flags,
        )
