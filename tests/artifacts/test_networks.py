"""Where an agent lets itself be sent: not to itself, not to its neighbours, unless its operator says so."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any

import anyio
import pytest

from khonsu.artifacts import ArtifactStore
from khonsu.artifacts.networks import is_allowed, parse_networks
from khonsu.errors import ArtifactError
from tests.artifacts.conftest import Site, content, sha256

OpenStore = Callable[..., ArtifactStore]
BODY = content(1000)
DIGEST = sha256(BODY)

INSIDE = [
    *("0.0.0.0", "0.1.2.3", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.0.1"),
    *("168.63.129.16", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.168.1.1"),
    *("198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::10.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b:1::1"),
    *("fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1", "2002:a00:1::1"),
    *("2001::1", "100::1"),
]
OUTSIDE = ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]


def test_what_is_public() -> None:
    """Every address that is not for everybody is inside, however it is written."""
    assert [text for text in INSIDE if is_allowed(ip_address(text), ())] == []
    assert [text for text in OUTSIDE if not is_allowed(ip_address(text), ())] == []


def test_what_an_operator_adds() -> None:
    """A network is allowed with all its addresses, and with those that stand for them, and nothing else is."""
    added = parse_networks(["192.168.1.0/24", "fd00::/8", "127.0.0.1"])
    for text in ("192.168.1.7", "::ffff:192.168.1.7", "64:ff9b::192.168.1.7", "fd00::1", "127.0.0.1", "8.8.8.8"):
        assert is_allowed(ip_address(text), added)
    for text in ("192.168.2.7", "fc00::1", "127.0.0.2", "::1"):
        assert not is_allowed(ip_address(text), added)
    assert is_allowed(ip_address("169.254.169.254"), parse_networks(["0.0.0.0/0"]))


@pytest.mark.parametrize("texts", ["10.0.0.0/8", ["10.0.0.1/8"], ["localhost"], [""], ["10.0.0.0/33"]])
def test_what_is_no_network(texts: Sequence[str]) -> None:
    """A mistake is told when the store is made, and allows nothing."""
    with pytest.raises(ValueError, match=r"is one text|host bits|does not appear"):
        parse_networks(texts)


class Names:
    """Answers to questions for names: each the next time the next one, and at last the last one again and again."""

    def __init__(self) -> None:
        self.answers: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []

    async def getaddrinfo(self, host: str, port: int, **_: Any) -> list[Any]:
        """Answer like the system's resolver."""
        self.asked.append(host)
        answers = self.answers[host]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Return a resolver that a test has in its hands."""
    made = Names()
    monkeypatch.setattr(anyio, "getaddrinfo", made.getaddrinfo)
    return made


@pytest.mark.anyio
@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f000001", "127.1", "0", "[::]"]
)
async def test_an_agent_does_not_ask_itself(site: Site, open_store: OpenStore, host: str) -> None:
    """However its own address is written, with a digest or without, nothing is sent there."""
    port = site.url.rpartition(":")[2]
    site.file("/tool", BODY)
    async with open_store(networks=()) as store:
        for url, digest in ((f"http://{host}:{port}/tool", DIGEST), (f"https://{host}:{port}/tool", None)):
            with pytest.raises(ArtifactError, match=r"not a public address.*--artifact-network") as caught:
                await store.fetch(url, digest)
            assert not caught.value.retryable
    assert site.visits == []


@pytest.mark.anyio
@pytest.mark.parametrize("target", ["http://169.254.169.254/latest", "http://10.0.0.1/", "http://2852039166/"])
async def test_a_redirect_does_not_lead_inside(site: Site, open_store: OpenStore, target: str) -> None:
    """A server outside cannot send the agent where a job cannot."""
    url = site.redirect("/tool", target)
    async with open_store() as store:
        with pytest.raises(ArtifactError, match=r"leads to (169\.254\.169\.254|10\.0\.0\.1), which is not a public"):
            await store.fetch(url, DIGEST)


@pytest.mark.anyio
async def test_the_address_that_was_checked_is_dialled(site: Site, open_store: OpenStore, names: Names) -> None:
    """A name is asked for once; what it means a moment later changes nothing. The server is told the name."""
    names.answers["tool.example"] = [["127.0.0.1"], ["169.254.169.254"]]
    url = site.file("/tool", BODY).replace("127.0.0.1", "tool.example")
    async with open_store() as store:
        (await store.fetch(url, DIGEST)).release()
    assert names.asked == ["tool.example"]
    assert site.asked("host") == [f"tool.example:{site.url.rpartition(':')[2]}"]


@pytest.mark.anyio
async def test_one_address_inside_is_enough(site: Site, open_store: OpenStore, names: Names) -> None:
    """A name that also leads inside is refused whole: who made it so can choose which is taken."""
    names.answers["tool.example"] = [["127.0.0.1", "10.0.0.1"]]
    url = site.file("/tool", BODY).replace("127.0.0.1", "tool.example")
    async with open_store() as store:
        with pytest.raises(ArtifactError, match=r"tool\.example:\d+/tool: leads to 10\.0\.0\.1"):
            await store.fetch(url, DIGEST)
    assert site.visits == []


@pytest.mark.anyio
async def test_the_next_address_is_tried(site: Site, open_store: OpenStore, names: Names) -> None:
    """An address of the host at which nobody listens is passed over."""
    names.answers["tool.example"] = [["127.0.0.9", "127.0.0.1"]]
    url = site.file("/tool", BODY).replace("127.0.0.1", "tool.example")
    async with open_store() as store:
        (await store.fetch(url, DIGEST)).release()
        names.answers["tool.example"] = [["127.0.0.9", "127.0.0.8"]]
        with pytest.raises(ArtifactError, match="no answer") as caught:
            await store.fetch(url + "2", sha256(b""))
    assert caught.value.retryable


@pytest.mark.anyio
async def test_an_address_without_an_answer_is_passed_over(site: Site, open_store: OpenStore, names: Names) -> None:
    """A server that hangs up on the question is as good as none; where all do, that is a fault that may pass."""
    names.answers["tool.example"] = [["127.0.0.9", "127.0.0.1"]]
    url = site.file("/tool", BODY).replace("127.0.0.1", "tool.example")
    with socket.create_server(("127.0.0.9", int(site.url.rpartition(":")[2]))) as silent:
        threading.Thread(target=_hang_up, args=(silent,), daemon=True).start()
        async with open_store() as store:
            (await store.fetch(url, DIGEST)).release()
            names.answers["tool.example"] = [["127.0.0.9", "127.0.0.9"]]
            with pytest.raises(ArtifactError, match=r"no answer \(Server disconnected") as caught:
                await store.fetch(url, sha256(b""))
        assert caught.value.retryable


def _hang_up(server: socket.socket) -> None:
    for _ in range(2):
        connection, _ = server.accept()
        with connection:
            connection.recv(2**16)


@pytest.mark.anyio
async def test_each_host_proves_who_it_is(secure_site: Site, open_store: OpenStore, names: Names) -> None:
    """Over TLS the certificate is for the name, also where another name before it had the same address."""
    names.answers = {"localhost": [["127.0.0.1"]], "tool.example": [["127.0.0.1"]]}
    real = secure_site.file("/tool", BODY)
    near, far = (real.replace("127.0.0.1", name) for name in names.answers)
    secure_site.pages["/latest"] = lambda visit: visit.answer(302, Location=far)
    async with open_store() as store:
        (await store.fetch(near)).release()
        for url in (far, near.replace("/tool", "/latest")):
            with pytest.raises(ArtifactError, match=r"tool\.example:\d+/tool: the server's certificate is not trusted"):
                await store.fetch(url)


@pytest.mark.anyio
async def test_a_name_that_is_not_known(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that cannot be resolved, or not in time, may be known later; one that is none never will."""

    async def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def hang(*_: object, **__: object) -> None:
        await anyio.sleep_forever()

    async def stumble(*_: object, **__: object) -> None:
        raise UnicodeError("label too long")

    monkeypatch.setattr("khonsu.artifacts.http.CONNECT_SECONDS", 0.01)
    async with open_store() as store:
        for answer, message in ((fail, "Name or service"), (hang, "not resolved in time"), (stumble, "label too long")):
            monkeypatch.setattr(anyio, "getaddrinfo", answer)
            with pytest.raises(ArtifactError, match=message) as caught:
                await store.fetch("https://tool.example/tool")
            assert caught.value.retryable is (answer is not stumble)
