"""Where webhooks may go, and all the ways in which an address can be written."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.webhooks.domain.addresses import AddressRules, parse_networks
from services.webhooks.errors import AddressRefusedError

STRICT = AddressRules()
LOOSE = AddressRules(private=True, http=True)
# IANA's special-purpose address registries, and what clouds answer at.
INNER_4 = [
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.0.0.0/29", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
    "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32", "169.254.169.254/32",
]  # fmt: skip
INNER_6 = [
    "::/128", "::1/128", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "2001:db8::/32",
    "100::/64", "fd00:ec2::254/128", "4000::/3",
]  # fmt: skip


def inside(networks: list[str]) -> st.SearchStrategy[int]:
    """Numbers of addresses inside one of some networks."""

    def numbers(network: IPv4Network | IPv6Network) -> st.SearchStrategy[int]:
        return st.integers(int(network[0]), int(network[-1]))

    return st.sampled_from(
        [IPv4Network(n) if "." in n else IPv6Network(n) for n in networks]
    ).flatmap(numbers)


inner_4 = inside(INNER_4).map(IPv4Address)
inner_6 = inside(INNER_6).map(IPv6Address)


@given(st.one_of(inner_4, inner_6))
def test_no_address_of_a_special_network_is_allowed(
    address: IPv4Address | IPv6Address,
) -> None:
    assert not STRICT.allows(address)


@given(inner_4, st.sampled_from(["::ffff:0:0", "64:ff9b::"]))
def test_an_inner_address_is_not_allowed_in_the_clothes_of_ipv6(
    address: IPv4Address, prefix: str
) -> None:
    assert not STRICT.allows(IPv6Address(int(IPv6Address(prefix)) | int(address)))


@given(inner_4)
def test_a_tunnel_to_an_inner_address_is_not_allowed(address: IPv4Address) -> None:
    six_to_four = int(IPv6Address("2002::")) | int(address) << 80
    assert not STRICT.allows(IPv6Address(six_to_four))
    teredo = int(IPv6Address("2001::")) | (int(address) ^ 0xFFFF_FFFF)
    assert not STRICT.allows(IPv6Address(teredo))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.215.14", "2606:4700::1111", "64:ff9b::8.8.8.8", "::ffff:1.1.1.1"]
)
def test_public_addresses_are_allowed(address: str) -> None:
    assert STRICT.allows(ip_address(address))
    STRICT.check([ip_address(address)])


def test_one_inner_address_refuses_all_of_a_host() -> None:
    with pytest.raises(AddressRefusedError, match=r"10\.0\.0\.1"):
        STRICT.check([ip_address("8.8.8.8"), ip_address("10.0.0.1")])


@given(inner_4)
def test_only_the_networks_on_the_list_are_allowed_beyond_public_ones(
    address: IPv4Address,
) -> None:
    rules = AddressRules(networks=parse_networks("10.1.0.0/16, fd12::/16"))
    assert rules.allows(address) == (address in IPv4Network("10.1.0.0/16"))


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_an_unicast_address_is_allowed_when_private_ones_are(address: IPv4Address) -> None:
    unicast = not (
        address.is_multicast or address.is_unspecified or str(address) == "255.255.255.255"
    )
    assert LOOSE.allows(address) == unicast
    if STRICT.allows(address):
        assert LOOSE.allows(address)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/hooks?key=1",
        "https://example.com:8443",
        "https://93.184.215.14/",
        "https://[2606:4700::1111]/",
        "https://xn--bcher-kva.example/",
    ],
)
def test_urls_that_may_be_fine_are_taken(url: str) -> None:
    STRICT.check_url(url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://example.com/", "http is not allowed"),
        ("ftp://example.com/", "https://"),
        ("example.com", "https://"),
        ("https://", "no host"),
        ("https:///path", "no host"),
        ("https://user:secret@example.com/", "user name"),
        ("https://@example.com/", "user name"),
        ("https://example.com/#part", "fragment"),
        ("https://example.com:99999/", "parsed"),
        ("https://[::1", "parsed"),
        ("https://exa mple.com/", "characters"),
        ("https://example.com\\@127.0.0.1/", "characters"),
        ("https://bücher.example/", "characters"),
        ("https://example.com/\n", "characters"),
        ("https://127.0.0.1/", "127.0.0.1"),
        ("https://[::1]/", "::1"),
        ("https://[::ffff:127.0.0.1]/", "not a public"),
        ("https://[fe80::1%25eth0]/", "zone"),
        ("https://169.254.169.254/latest/meta-data", "not a public"),
        ("https://127.1/", "usual form"),
        ("https://2130706433/", "usual form"),
        ("https://0x7f000001/", "usual form"),
        ("https://0x7f.1/", "usual form"),
        ("https://0177.0.0.1/", "usual form"),
        ("https://127.0.0.1./", "usual form"),
        ("https://%31%32%37.0.0.1/", "zone or an escape"),
        ("https://" + "a" * 2050, "characters"),
    ],
)
def test_urls_that_lead_elsewhere_are_refused_with_the_reason(url: str, reason: str) -> None:
    with pytest.raises(AddressRefusedError, match=reason):
        STRICT.check_url(url)


@given(st.text(max_size=60))
def test_any_text_is_either_taken_or_refused_as_a_url(text: str) -> None:
    for url in (text, f"https://{text}", f"https://example.com{text}"):
        try:
            STRICT.check_url(url)
        except AddressRefusedError:
            continue
        assert url.startswith("https://") or url.lower().startswith("https://")


def test_a_network_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/99"):
        parse_networks("10.0.0.0/99")
