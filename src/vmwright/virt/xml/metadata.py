"""<metadata>: our mark of ownership, both ways, and libosinfo's."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping

from vmwright.facts.model import OwnerFacts
from vmwright.names import METADATA_PREFIX, METADATA_URI
from vmwright.virt.xml.tree import el

OSINFO_URI = "http://libosinfo.org/xmlns/libvirt/domain/1.0"
_ELEMENT = "vm"
OWNER_TAG = f"{{{METADATA_URI}}}{_ELEMENT}"  # as a namespace-aware parser calls it


def metadata(*parts: ET.Element | None) -> ET.Element:
    """The element that holds the marks of all programs, one each."""
    return el("metadata", *parts)


def owner(facts: OwnerFacts) -> ET.Element:
    """Our mark."""
    attributes = {
        f"xmlns:{METADATA_PREFIX}": METADATA_URI,
        "cloud": facts.cloud,
        "name": facts.vm,
        "template": facts.template,
        "version": facts.template_version,
        "instance": facts.instance,
        "seed": facts.seed,
        "protect": "yes" if facts.protect else "no",
        **({} if facts.nics is None else {"nics": " ".join(facts.nics)}),
        **({"devices": " ".join(facts.devices)} if facts.devices else {}),
        **({"pinned": "yes"} if facts.pinned else {}),
    }
    return el(f"{METADATA_PREFIX}:{_ELEMENT}", **attributes)


def read_owner(attributes: Mapping[str, str]) -> OwnerFacts | None:
    """Our mark read back from its attributes. None when it does not say whose the VM is: then it is not ours."""
    cloud, vm = attributes.get("cloud"), attributes.get("name")
    if not cloud or not vm:
        return None
    template, version, instance, seed = (attributes.get(key, "") for key in ("template", "version", "instance", "seed"))
    nics = tuple(attributes["nics"].split()) if "nics" in attributes else None
    return OwnerFacts(cloud, vm, template, version, instance, seed, attributes.get("protect") == "yes", nics,
                      tuple(attributes.get("devices", "").split()), attributes.get("pinned") == "yes")


def is_owner(element: ET.Element, *around: ET.Element) -> bool:
    """Whether an element from tree.parse is our mark. `around` are the elements it stands in, innermost first."""
    if not isinstance(element.tag, str):
        return False  # a comment
    prefix, _, local = element.tag.rpartition(":")
    declaration = f"xmlns:{prefix}" if prefix else "xmlns"
    uri = next((place.get(declaration) for place in (element, *around) if declaration in place.attrib), None)
    return local == _ELEMENT and uri == METADATA_URI


def osinfo(os_id: str) -> ET.Element:
    """The operating system by its libosinfo id, e.g. http://debian.org/debian/12; virt-manager shows it."""
    return el("libosinfo:libosinfo", el("libosinfo:os", id=os_id), **{"xmlns:libosinfo": OSINFO_URI})
