"""What is known of the guests of a template: which family, and whether the guest agent is there. Pure."""

from __future__ import annotations

from vmwright.guest.seed import ImageTraits
from vmwright.image import catalogue
from vmwright.spec.cloud import BuildSource, ImageSource


def traits_of(source: BuildSource | ImageSource) -> ImageTraits:
    """The traits of guests made from this source. An image nobody knows is taken to lack the agent."""
    if isinstance(source, BuildSource):
        return ImageTraits(agent_installed=True, agent_exec_blocked=False, family="debian")
    if source.os:
        entry = catalogue.lookup(source.os)
        return ImageTraits(agent_installed=entry.agent_installed, agent_exec_blocked=entry.agent_exec_blocked,
                           family=entry.family)
    return ImageTraits(agent_installed=False, agent_exec_blocked=False, family="")
