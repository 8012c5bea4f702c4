"""XML trees: made, read and written, with namespace prefixes left exactly as they stand.

ElementTree's own parser renames the prefixes of namespaces it does not know (ns0, ns1) and drops comments. An edited
domain holds elements of other programs (qemu:commandline, libosinfo), so the trees here are read without namespace
processing: a tag is "qemu:arg", a declaration is the attribute "xmlns:qemu", and writing gives back what was read.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from xml.parsers import expat


def el(tag: str, *children: ET.Element | None, text: str | None = None, **attributes: str | int | None) -> ET.Element:
    """An element. Children and attributes that are None are left out."""
    made = ET.Element(tag, {key: str(value) for key, value in attributes.items() if value is not None})
    made.text = text
    made.extend(child for child in children if child is not None)
    return made


def parse(text: str) -> ET.Element:
    """The root element of an XML text, comments and processing instructions kept. Raises expat.ExpatError."""
    builder = ET.TreeBuilder(insert_comments=True, insert_pis=True)
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.CommentHandler = builder.comment
    parser.ProcessingInstructionHandler = builder.pi
    parser.Parse(text, True)
    return builder.close()


def render(root: ET.Element) -> str:
    """The XML text of a tree, indented. White space between elements is not kept: libvirt sets its own at a define."""
    ET.indent(root, "  ")
    root.tail = None
    return ET.tostring(root, encoding="unicode") + "\n"


def ensure(parent: ET.Element, tag: str) -> ET.Element:
    """The child with that tag, made when it is not there."""
    found = parent.find(tag)
    return found if found is not None else ET.SubElement(parent, tag)


def drop(parent: ET.Element, *tags: str) -> None:
    """Remove all children with those tags."""
    for child in [child for child in parent if child.tag in tags]:
        parent.remove(child)


def insert_after(parent: ET.Element, new: ET.Element, *tags: str) -> None:
    """Put `new` after the last child with one of those tags, or at the end."""
    places = [place for place, child in enumerate(parent, 1) if child.tag in tags]
    parent.insert(places[-1] if places else len(parent), new)


def replace(parent: ET.Element, old: ET.Element | None, new: ET.Element) -> None:
    """Put `new` where `old` stands, or at the end."""
    if old is None:
        parent.append(new)
    else:
        parent[list(parent).index(old)] = new
