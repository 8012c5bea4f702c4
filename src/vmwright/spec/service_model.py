"""What a user may write of a host's own services for guests: DNS and DHCP, NTP, a package proxy, masquerading."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from vmwright.spec import values as v
from vmwright.spec.base import Base, Ips, Servers, listed


def _on(value: object) -> object:
    return {} if value is True else None if value is False else value


def _outward(value: object) -> object:
    return {"out": value} if isinstance(value, str) else value


Subnets = Annotated[list[v.Subnet], BeforeValidator(listed, json_schema_input_type=v.Subnet | list[v.Subnet])]
Port = Annotated[v.Int, Field(ge=1, le=65535)]


class DnsIn(Base):
    """DNS on a bridge of the host, and DHCP if wanted, by dnsmasq. Nothing of the host's other networks is served."""

    bridge: v.Device | None = Field(
        default=None, description="The bridge whose guests are served. Default: the only one that the file's networks "
        "are on."
    )
    dhcp: v.Range | None = Field(
        default=None, description="Addresses that are handed out, like 192.168.6.100-192.168.6.199: in the subnet of a "
        "network on that bridge, and none of them given to anybody in the file. Default: no DHCP."
    )
    names: v.Bool = Field(
        default=True, description="Whether it knows the cloud's VMs with fixed addresses, and the host, by name. "
        "Default: true."
    )
    upstream: Ips = Field(
        default=[], description="DNS servers that are asked for everything else. Default: those of the host."
    )


class NtpIn(Base):
    """NTP for guests, by chrony; where no server answers the host itself, guests still agree with its clock."""

    networks: Subnets | None = Field(
        default=None, description="Subnets that are served. Default: those of all networks of the file."
    )
    upstream: Servers = Field(
        default=[], description="NTP servers of the host, besides those that chrony has from its distribution. "
        "Default: none."
    )


class ProxyIn(Base):
    """A proxy that keeps packages, for the package managers of guests."""

    kind: Literal["squid", "apt-cacher-ng"] = Field(
        default="squid", description="squid, or apt-cacher-ng (on Debian and Ubuntu hosts). Default: squid."
    )
    port: Port | None = Field(
        default=None, description="Its TCP port. Default: 3128 for squid, 3142 for apt-cacher-ng."
    )
    networks: Subnets | None = Field(
        default=None, description="Subnets whose guests may use it. Default: those of all networks of the file; with "
        "apt-cacher-ng of those on bridges."
    )
    cache: v.Size | None = Field(
        default=None, description="With squid: room on the host's disk for what is kept. Default: 10G."
    )


class MasqueradeIn(Base):
    """Guests reach what is behind an interface of the host, with the host's own address there (nftables)."""

    out: v.Device = Field(description="The interface that leads out, like eno1.")
    networks: Subnets | None = Field(
        default=None, description="Subnets whose guests are let out. Default: those of the file's networks on bridges "
        "other than `out`."
    )


class ServicesIn(Base):
    """The host's own services for guests. What is not said is not set up, and what was set up before is taken away."""

    dns: Annotated[
        DnsIn | None, BeforeValidator(_on, json_schema_input_type=bool | DnsIn)
    ] = Field(default=None, description="DNS, and DHCP, on a bridge: true, or {bridge, dhcp, names, upstream}. "
              "Default: false.")
    ntp: Annotated[
        NtpIn | None, BeforeValidator(_on, json_schema_input_type=bool | NtpIn)
    ] = Field(default=None, description="NTP: true, or {networks, upstream}. Default: false.")
    proxy: Annotated[
        ProxyIn | None, BeforeValidator(_on, json_schema_input_type=bool | ProxyIn)
    ] = Field(default=None, description="A package proxy: true, or {kind, port, networks, cache}. Default: false.")
    masquerade: Annotated[
        MasqueradeIn | None, BeforeValidator(_outward, json_schema_input_type=v.Device | MasqueradeIn)
    ] = Field(default=None, description="Masquerading: the interface that leads out, or {out, networks}. Default: "
              "none.")
