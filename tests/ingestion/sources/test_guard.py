"""Where sources may connect to: the rules of addresses, the names, and the pin."""

from __future__ import annotations

import asyncio
import io
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.sources.fetch import Fetcher
from ingestion.sources.guard import check_address, check_url, is_public, parse_rules
from ingestion.sources.settings import SourceSettings
from tenants.errors import SourceFailed

if TYPE_CHECKING:
    from tests.ingestion.sources.site import Site

RULES = parse_rules("", "80,443")
INNER = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "100.100.100.200",
    "169.254.169.254",
    "168.63.129.16",
    "192.0.0.192",
    "192.88.99.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]
OUTER = [
    "8.8.8.8",
    "1.1.1.1",
    "193.0.0.1",
    "2606:4700::1111",
    "2a00:1450:4001::1",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
]


@pytest.mark.parametrize("address", INNER)
def test_an_address_inside_a_network_is_refused(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", OUTER)
def test_an_address_of_the_open_internet_is_not(address: str) -> None:
    assert is_public(ip_address(address))


PRIVATE = [
    ip_network(n)
    for n in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "224.0.0.0/3",
    )
]


@given(st.sampled_from(PRIVATE), st.integers(min_value=0), st.sampled_from(["", "::ffff:", "64:ff9b::", "::"]))
def test_no_spelling_of_a_private_address_passes(network: object, offset: int, prefix: str) -> None:
    inner = network[offset % network.num_addresses]  # type: ignore[index,attr-defined]
    assert not is_public(ip_address(f"{prefix}{inner}"))


@given(st.integers(min_value=0, max_value=2**32 - 1))
def test_what_passes_is_global_and_no_multicast(number: int) -> None:
    address = IPv4Address(number)
    if is_public(address):
        assert address.is_global
        assert not address.is_multicast
    assert is_public(IPv6Address((0xFFFF << 32) | number)) == is_public(address)


@given(st.integers(min_value=0, max_value=2**128 - 1))
def test_what_passes_of_ipv6_is_global_unicast_or_leads_to_such(number: int) -> None:
    address = IPv6Address(number)
    if is_public(address) and address.ipv4_mapped is None and address not in ip_network("64:ff9b::/96"):
        assert number >> 125 == 0b001


REFUSED_URLS = [
    "http://127.0.0.1/",
    "http://[::1]/",
    "http://0.0.0.0/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[fd00:ec2::254]/",
    "http://metadata.google.internal/",
    "http://metadata/",
    "http://localhost/",
    "http://localhost./",
    "http://LOCALHOST/",
    "http://printer.local/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0177.0.0.1/",
    "http://127.1/",
    "http://017700000001/",
    "http://8.8.8.8.1/",
    "http://user@example.com/",
    "http://user:secret@example.com/",
    "http://example.com@127.0.0.1/",
    "http://127.0.0.1#@example.com/",
    "http://127.0.0.1\\@example.com/",
    "https://example.com:22/",
    "http://example.com:6379/",
    "file:///etc/passwd",
    "ftp://example.com/",
    "gopher://example.com/",
    "//example.com/",
    "http://",
    "http:///etc",
    "http://exa mple.com/",
    "http://example.com%0d%0aX-A:b/",
    "http://example.com:99999/",
    "http://①②⑦.⓪.⓪.①/",
    "http://127。0。0。1/",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/",
]


@pytest.mark.parametrize("url", REFUSED_URLS)
def test_an_address_is_refused_before_it_is_looked_up(url: str) -> None:
    with pytest.raises(SourceFailed) as caught:
        check_url(url, RULES)
    assert caught.value.code == "source_address_refused"


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "https://example.com:443/a?b#c",
        "http://bücher.example/",
        "https://1.1.1.1/",
        "http://[2606:4700::1111]/",
    ],
)
def test_a_public_address_may_be_tried(url: str) -> None:
    assert check_url(url, RULES).scheme in ("http", "https")


def test_the_operator_allows_networks_and_hosts_with_their_ports() -> None:
    rules = parse_rules("10.1.0.0/16, wiki.corp.example:8080, 192.168.7.7:*, [fd00:1::]/32:8443", "80,443")
    for host, address, port, passes in (
        ("a.example", "10.1.2.3", 80, True),
        ("a.example", "10.1.2.3", 8080, False),
        ("a.example", "10.2.0.1", 80, False),
        ("wiki.corp.example", "10.9.9.9", 8080, True),
        ("wiki.corp.example", "10.9.9.9", 80, False),
        ("other.example", "10.9.9.9", 8080, False),
        ("a.example", "192.168.7.7", 5000, True),
        ("a.example", "::ffff:192.168.7.7", 5000, True),
        ("a.example", "fd00:1::5", 8443, True),
        ("a.example", "fd00:1::5", 443, False),
        ("a.example", "127.0.0.1", 80, False),
    ):
        try:
            check_address(host, ip_address(address), port, rules)
            passed = True
        except SourceFailed:
            passed = False
        assert passed == passes, (host, address, port)


@pytest.mark.parametrize("allowed", ["10.0.0.0/99", "a b", "http://x", "10.0.0.1:99999"])
def test_a_setting_that_is_no_rule_is_refused(allowed: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        SourceSettings(allow_networks=allowed)


class Resolver:
    """Answers each look-up with the next of its answers, and counts."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers, self.asked = list(answers), 0

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]


def fetched(url: str, resolver: Resolver, **settings: str) -> object:
    async def get() -> object:
        fetcher = Fetcher(SourceSettings(connect_timeout_s=2.0, **settings), lookup=resolver)  # type: ignore[arg-type]
        try:
            return await fetcher.get(url, io.BytesIO(), max_bytes=1000)
        finally:
            await fetcher.aclose()

    return asyncio.run(get())


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["2606:4700::1111", "::1"], ["::ffff:127.0.0.1"], ["fe80::1%eth0"]],
)
def test_a_host_of_which_one_address_is_private_is_refused(addresses: list[str]) -> None:
    with pytest.raises(SourceFailed) as caught:
        fetched("http://rebound.example/", Resolver(addresses))
    assert caught.value.code == "source_address_refused"


def test_a_connection_goes_to_the_address_that_was_checked(site: Site) -> None:
    """A name that resolves to something else the next moment: nobody asks a second time."""
    port = int(site.url.rsplit(":", 1)[1])
    site.put("/page", "hello")
    resolver = Resolver(["127.0.0.1"], ["10.255.255.1"])
    fetched(f"http://rebound.example:{port}/page", resolver, allow_networks="127.0.0.0/8:*")
    assert resolver.asked == 1
    assert site.asked[0][1]["Host"] == f"rebound.example:{port}", "the host stays the one that was named"


def test_a_name_that_turns_private_after_a_redirect_is_refused(site: Site) -> None:
    port = int(site.url.rsplit(":", 1)[1])
    site.redirect("/page", "/next")
    site.pages["/page"].headers["Connection"] = "close"
    resolver = Resolver(["127.0.0.1"], ["10.255.255.1"])
    with pytest.raises(SourceFailed) as caught:
        fetched(f"http://rebound.example:{port}/page", resolver, allow_networks="127.0.0.0/8:*")
    assert (caught.value.code, resolver.asked) == ("source_address_refused", 2)
    assert site.paths() == ["/page"]


@pytest.mark.parametrize(
    "target",
    ["http://10.0.0.1/", "file:///etc/passwd", "http://[::1]/", "gopher://127.0.0.1:70/", "http://0x7f000001/"],
)
def test_a_redirect_is_checked_like_any_address(site: Site, target: str) -> None:
    site.redirect("/page", target)
    only = f"127.0.0.1:{site.url.rsplit(':', 1)[1]}"
    with pytest.raises(SourceFailed) as caught:
        fetched(f"{site.url}/page", Resolver(["127.0.0.1"]), allow_networks=only)
    assert caught.value.code == "source_address_refused"


def test_loopback_is_refused_where_nobody_allows_it(site: Site) -> None:
    with pytest.raises(SourceFailed) as caught:
        fetched(f"{site.url}/page", Resolver(["127.0.0.1"]))
    assert caught.value.code == "source_address_refused"
    assert site.asked == []
