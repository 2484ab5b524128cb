"""Where webhooks may go: schemes, hosts and addresses. Nothing is resolved here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from urllib.parse import urlsplit

from services.webhooks.errors import AddressRefusedError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_URL = 2048
_GLOBAL_UNICAST = IPv6Network("2000::/3")
# How the last label of an IPv4 address can be written (WHATWG URL, "ends in a number").
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
# Networks that translate to IPv4 (RFC 6052): the last 32 bits are the address that is reached.
_NAT64 = IPv6Network("64:ff9b::/96")
# Public by its number, but inside every Azure machine it is the host that hands out its secrets.
_METADATA = frozenset({IPv4Address("168.63.129.16")})


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRules:
    """What is allowed beyond https to public addresses.

    `networks` are allowed whatever they are. `private` allows every unicast address: loopback,
    link-local and the metadata services of clouds among them.
    """

    private: bool = False
    http: bool = False
    networks: Sequence[Network] = ()

    def allows(self, address: Address) -> bool:
        """Whether a webhook may be sent to this address."""
        reached = _reached(address)
        if any(one in network for one in (address, reached) for network in self.networks):
            return True
        if reached.is_multicast or reached.is_unspecified or _is_broadcast(reached):
            return False
        return self.private or _is_public(reached)

    def check_url(self, url: str) -> None:
        """Check what can be seen without resolving the name; raises `AddressRefusedError`."""
        if len(url) > MAX_URL:
            raise AddressRefusedError(f"it has more than {MAX_URL} characters")
        if not url.isascii() or any(char <= " " or char in "\x7f\\" for char in url):
            raise AddressRefusedError("it has characters that a URL can't have unescaped")
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise AddressRefusedError(f"it can't be parsed: {error}") from error
        if parts.scheme not in ("https", "http"):
            raise AddressRefusedError("it must begin with https://")
        if parts.scheme == "http" and not self.http:
            raise AddressRefusedError("it must begin with https://, http is not allowed here")
        if not host:
            raise AddressRefusedError("it has no host")
        if parts.username is not None or parts.password is not None:
            raise AddressRefusedError("it must not have a user name or password in it")
        if "#" in url:
            raise AddressRefusedError("it must not have a fragment")
        self.check_host(host)

    def check_host(self, host: str) -> None:
        """Check a host if it is an address; raises `AddressRefusedError`.

        What only looks like one is refused: `127.1` and `0x7f.1` are addresses to some parts of a
        machine and names to others, which is how checks are talked past.
        """
        if "%" in host:
            raise AddressRefusedError("its host has a zone or an escape")
        try:
            address = ip_address(host)
        except ValueError as error:
            if _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
                raise AddressRefusedError("its host is not an address in usual form") from error
            return
        self.check([address])

    def check(self, addresses: Sequence[Address]) -> None:
        """Refuse when any of the addresses of a host is not allowed: `AddressRefusedError`."""
        for address in addresses:
            if not self.allows(address):
                raise AddressRefusedError(f"{address} is not a public address")


def parse_networks(text: str) -> tuple[Network, ...]:
    """Return the networks of a list such as `10.0.0.0/8,fd00::/8`; raises `ValueError`."""
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


def _reached(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, or the address itself."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast and address not in _METADATA
    if address not in _GLOBAL_UNICAST or not address.is_global:
        return False
    # Tunnels end at an IPv4 address that is written in theirs (RFC 3056, RFC 4380).
    ends = [address.sixtofour, *(address.teredo or ())]
    return all(_is_public(end) for end in ends if end is not None)


def _is_broadcast(address: Address) -> bool:
    return address == IPv4Address("255.255.255.255")
