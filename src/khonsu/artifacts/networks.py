"""Where a connection for an artifact may go: the public internet, and what the node's operator adds to it.

Who submits a job says what an agent asks for. It must not be able to ask, from the inside, what is not for everybody:
the agent's own machine, its neighbours, or the service of a cloud that hands out keys (169.254.169.254).
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import zip_longest
from typing import Final, TypeAlias

import anyio

from khonsu.artifacts.faults import fault
from khonsu.artifacts.source import Source

Network: TypeAlias = IPv4Network | IPv6Network
Address: TypeAlias = IPv4Address | IPv6Address

ADDRESSES_MAX: Final = 4
"""How many addresses of a host are tried."""

# The registries of special addresses (RFC 6890, as IANA keeps them), which `ipaddress` reads differently from version
# to version; and one address at which every machine of one cloud finds that cloud.
_NOT_PUBLIC_4: Final = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
        "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    )
)  # fmt: skip
_PUBLIC_6: Final = IPv6Network("2000::/3")
_NOT_PUBLIC_6: Final = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
_NAT64: Final = IPv6Network("64:ff9b::/96")  # RFC 6052: the last four bytes are where it leads


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Return networks by their text, such as `192.168.1.0/24`; a single address is a network of one.

    Raises:
        ValueError: One is none.

    """
    if isinstance(texts, str):
        raise ValueError(f"{texts!r} is one text; networks are a list of them")
    return tuple([ip_network(text) for text in texts])


def is_allowed(address: Address, networks: Sequence[Network]) -> bool:
    """Return whether a connection to an address may be made: it is public, or within one of the networks."""
    meant = _meant(address)
    return _is_public(meant) or any(each in network for network in networks for each in (address, meant))


async def resolve(source: Source, networks: Sequence[Network], *, seconds: float) -> tuple[str, ...]:
    """Return the addresses of a source's host that are to be dialled, in order; they are checked, every one.

    What is returned is to be connected to, not the name: another answer to the same question may come a moment later.

    Raises:
        ArtifactError: The name is not known, or not in time, or one of its addresses may not be connected to.

    """
    try:
        with anyio.fail_after(seconds):
            found = await anyio.getaddrinfo(source.host, source.port, type=socket.SOCK_STREAM)
    except TimeoutError as error:
        raise fault(source.shown, "no answer (the name was not resolved in time)", retryable=True) from error
    except UnicodeError as error:
        raise fault(source.shown, f"the address cannot be used ({error})") from error
    except OSError as error:
        raise fault(source.shown, f"no answer ({error.strerror or error})", retryable=True) from error
    addresses = [ip_address(entry[4][0]) for entry in found]
    for address in addresses:
        if not is_allowed(address, networks):
            hint = f"The node's operator can allow it: khonsu agent --artifact-network {_meant(address)}"
            raise fault(source.shown, f"leads to {address}, which is not a public address", hint=hint)
    return tuple(map(str, _interleaved(addresses)))[:ADDRESSES_MAX]


def _meant(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address only stands for, or the address itself."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    return address in _PUBLIC_6 and not any(address in network for network in _NOT_PUBLIC_6)


def _interleaved(addresses: Sequence[Address]) -> list[Address]:
    """Return addresses, both kinds in turns, so that it soon shows where one kind leads nowhere (RFC 8305, 4)."""
    first = [address for address in addresses if address.version == addresses[0].version]
    other = [address for address in addresses if address.version != addresses[0].version]
    return list(dict.fromkeys(each for pair in zip_longest(first, other) for each in pair if each is not None))
