"""A web site on a real socket that a test can let misbehave, and stores over real directories."""

from __future__ import annotations

import hashlib
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from khonsu.artifacts import ArtifactStore
from khonsu.env import SystemEnv
from khonsu.security.authority import Authority
from khonsu.security.serving import server_context

KIB = 1 << 10
MIB = 1 << 20
NEAR = ("127.0.0.0/8", "::1")
"""Where the sites of these tests are."""

Page = Callable[["Visit"], None]


def content(size: int, seed: str = "") -> bytes:
    """Return bytes that look like nothing, the same for the same seed."""
    return hashlib.shake_256(seed.encode()).digest(size)


def sha256(data: bytes) -> str:
    """Return a digest in hex."""
    return hashlib.sha256(data).hexdigest()


class Visit(BaseHTTPRequestHandler):
    """One request, answered by the page of its path."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    site: Site

    def do_GET(self) -> None:
        self.site.visits.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        page = self.site.pages.get(self.path.partition("?")[0])
        with suppress(ConnectionError, ssl.SSLError):
            if page is None:
                self.answer(404)
            else:
                page(self)

    def head(self, status: int, **headers: str | int | None) -> None:
        """Send a status and headers; names with underscores, None for a header that is left out."""
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def answer(self, status: int, body: bytes = b"", **headers: str | int | None) -> None:
        """Send a whole answer."""
        self.head(status, Content_Length=len(body), **headers)
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


class Site:
    """A web site: pages by path, and the visits there were."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.pages: dict[str, Page] = {}
        self.visits: list[tuple[str, dict[str, str]]] = []
        # What a page waits for halfway; a test that holds pages opens it in the end.
        self.gate = threading.Event()

    def file(
        self,
        path: str,
        body: bytes,
        *,
        etag: str | None = None,
        modified: str | None = None,
        ranges: bool = True,
        cut_after: int | None = None,
        hold_after: int | None = None,
        length: bool = True,
    ) -> str:
        """Publish a file, and return its address.

        Args:
            path: Where.
            body: The bytes.
            etag: Its entity tag.
            modified: When it was last changed.
            ranges: Whether parts are served.
            cut_after: After how many bytes of the whole the connection is closed.
            hold_after: After how many bytes of the whole to wait for the gate.
            length: Whether the length is told.

        """

        def page(visit: Visit) -> None:
            asked = self.visits[-1][1]
            if etag is not None and asked.get("if-none-match") == etag:
                visit.head(304, ETag=etag)
                return
            if modified is not None and asked.get("if-modified-since") == modified:
                visit.head(304, Last_Modified=modified)
                return
            begin = 0
            wanted = asked.get("range")
            if ranges and wanted is not None and asked.get("if-range", etag) == etag:
                begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
                if begin >= len(body):
                    visit.answer(416, Content_Range=f"bytes */{len(body)}")
                    return
            part = f"bytes {begin}-{len(body) - 1}/{len(body)}" if begin else None
            visit.close_connection = cut_after is not None or not length
            visit.head(
                206 if begin else 200,
                Content_Length=len(body) - begin if length else None,
                Content_Range=part,
                ETag=etag,
                Last_Modified=modified,
            )
            if hold_after is not None and hold_after > begin:
                visit.wfile.write(body[begin:hold_after])
                visit.wfile.flush()
                self.gate.wait()
                begin = hold_after
            visit.wfile.write(body[begin:cut_after])

        self.pages[path] = page
        return self.url + path

    def redirect(self, path: str, location: str, status: int = 302) -> str:
        """Publish a redirect, and return its address."""
        self.pages[path] = lambda visit: visit.answer(status, b"elsewhere", Location=location)
        return self.url + path

    def page(self, path: str, page: Page) -> str:
        """Publish what a function answers, and return its address."""
        self.pages[path] = page
        return self.url + path

    def asked(self, header: str) -> list[str | None]:
        """Return what the visits said in one header."""
        return [headers.get(header) for _, headers in self.visits]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that leave halfway are what is tested."""


@contextmanager
def _served(tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    class SiteVisit(Visit):
        pass

    with _Server(("127.0.0.1", 0), SiteVisit) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        scheme = "http" if tls is None else "https"
        SiteVisit.site = site = Site(f"{scheme}://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield site
        finally:
            site.gate.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Return a folder to which everybody may pass: an agent that is root reads no file in another."""
    with tempfile.TemporaryDirectory(prefix="khonsu-test-") as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path


@pytest.fixture
def site() -> Iterator[Site]:
    """Return a web site without TLS."""
    with _served() as site:
        yield site


@pytest.fixture
def other_site() -> Iterator[Site]:
    """Return another one, of another origin."""
    with _served() as site:
        yield site


@pytest.fixture(scope="session")
def authority_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the authority that `secure_site` has its certificate of."""
    directory = tmp_path_factory.mktemp("authority")
    Authority.open(directory, SystemEnv())
    return directory


@pytest.fixture
def ca_file(authority_directory: Path) -> Path:
    """Return the certificate that makes `secure_site` trusted."""
    return authority_directory / "ca.pem"


@pytest.fixture
def secure_site(authority_directory: Path) -> Iterator[Site]:
    """Return a web site with TLS."""
    env = SystemEnv()
    with _served(server_context(Authority.open(authority_directory, env), [], env)) as site:
        yield site


@pytest.fixture(scope="session")
def system_ca_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the certificate of an authority that nothing here was signed by."""
    file = tmp_path_factory.mktemp("system") / "ca.pem"
    file.write_text(Authority.new(SystemEnv()).certificate_pem)
    return file


@pytest.fixture
def open_store(
    tmp_path: Path, ca_file: Path, system_ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., ArtifactStore]:
    """Return a function that makes a store over the test's cache directory, trusting `secure_site`."""
    # One authority instead of the system's many, which take longer to read than most tests to run.
    monkeypatch.setenv("SSL_CERT_FILE", str(system_ca_file))

    def make(**options: Any) -> ArtifactStore:
        return ArtifactStore(tmp_path / "cache", env=SystemEnv(), **{"ca_file": ca_file, "networks": NEAR, **options})

    return make
