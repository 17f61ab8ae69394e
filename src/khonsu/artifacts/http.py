"""Artifacts from web servers. The only module of this package that loads httpx, and only when one is fetched."""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Final

from khonsu.artifacts.faults import cut, fault
from khonsu.artifacts.incoming import Ask, Incoming, Validator
from khonsu.artifacts.networks import Network, resolve
from khonsu.artifacts.source import Source, authority, redirected
from khonsu.errors import ArtifactError
from khonsu.web import httpx

REDIRECTS_MAX: Final = 5
CONNECT_SECONDS: Final = 15.0
CONNECT_SECONDS_SHORT: Final = 4.0
"""For an address that is not the last one of its host."""
SILENCE_SECONDS: Final = 30.0
VALIDATOR_LENGTH_MAX: Final = 256

_BROKEN = (httpx.TransportError, ssl.SSLError)
"""What is wrong with a connection; of broken TLS, httpx does not say so in words of its own."""
_REDIRECTS = {301, 302, 303, 307, 308}
_RETRYABLE = {408, 425, 429}
_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18}|\*)", re.ASCII)


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return a context that trusts the system's authorities, and those of a file on top. Blocks.

    The system's are those of OpenSSL, which also asks `SSL_CERT_FILE` and `SSL_CERT_DIR`; where there are none, as in
    some Pythons for macOS and in bare containers, those of certifi.

    Raises:
        OSError: The file cannot be read, or holds no certificate (`ssl.SSLError`).

    """
    context = ssl.create_default_context()
    if not _knows_authorities(context):
        context = httpx.create_ssl_context(trust_env=False)
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


def _knows_authorities(context: ssl.SSLContext) -> bool:
    if context.cert_store_stats()["x509_ca"]:
        return True
    directory: str | None = ssl.get_default_verify_paths().capath
    return directory is not None and any(Path(directory).iterdir())


class _Web:
    """Sends requests, each to an address that was looked at."""

    def __init__(self, transport: httpx.AsyncHTTPTransport, networks: Sequence[Network]) -> None:
        self._transport = transport
        self._networks = networks

    async def answer(self, source: Source, ask: Ask) -> tuple[httpx.Response, Source]:
        """Send a request, again and again as redirects say; return the last answer, its body still to be read."""
        current = source
        for _ in range(REDIRECTS_MAX + 1):
            response = await self._send(current, ask)
            location = response.headers.get("location")
            if response.status_code not in _REDIRECTS or location is None:
                return response, current
            await response.aclose()
            current = redirected(current, location, pinned=ask.pinned)
        raise fault(source.shown, f"more than {REDIRECTS_MAX} redirects", hint="Ask for the final address")

    async def _send(self, source: Source, ask: Ask) -> httpx.Response:
        """Ask the addresses of a host one after the other, until one answers."""
        *others, last = await resolve(source, self._networks, seconds=CONNECT_SECONDS)
        for address in others:
            with suppress(*_BROKEN):
                return await self._send_to(address, source, ask, connect_seconds=CONNECT_SECONDS_SHORT)
        try:
            return await self._send_to(last, source, ask, connect_seconds=CONNECT_SECONDS)
        except _BROKEN as error:
            raise _no_answer(source, error) from error

    async def _send_to(self, address: str, source: Source, ask: Ask, *, connect_seconds: float) -> httpx.Response:
        """Ask one address in the name of its host, which the server's certificate must be for."""
        try:
            url = httpx.URL(
                scheme=source.scheme, host=address, port=source.port, raw_path=source.target.encode("ascii")
            )
        except httpx.InvalidURL as error:
            raise fault(source.shown, f"the address cannot be used ({error})") from error
        timeout = httpx.Timeout(SILENCE_SECONDS, connect=connect_seconds)
        extensions = {"timeout": timeout.as_dict(), "sni_hostname": source.host}
        sent = httpx.Request("GET", url, headers=_headers(source, ask), extensions=extensions)
        return await self._transport.handle_async_request(sent)


@asynccontextmanager
async def request(
    source: Source, ask: Ask, *, context: ssl.SSLContext, networks: Sequence[Network]
) -> AsyncGenerator[Incoming, None]:
    """Ask a server for an artifact, follow its redirects, and yield its answer.

    Args:
        source: Where.
        ask: What is there already.
        context: Whom to trust.
        networks: Where, besides the public internet, a connection may go.

    Raises:
        ArtifactError: There is no usable answer; also raised where the answer's bytes are read.

    """
    # The transport, not the client: redirects, credentials and cookies are ours to decide, and nothing is taken from
    # the environment, where a .netrc or a proxy would send credentials to whom the job did not name.
    # No connection is used again: it was made to an address, and the next host there is another one to be proven.
    unused = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncHTTPTransport(verify=context, trust_env=False, limits=unused) as transport:
        web = _Web(transport, networks)
        response, final = await web.answer(source, ask)
        if ask.offset and not _continues(response, ask):
            await response.aclose()
            ask = Ask(pinned=ask.pinned, whole=ask.whole)
            response, final = await web.answer(source, ask)
        try:
            yield _incoming(response, final, ask)
        finally:
            await response.aclose()


def _headers(source: Source, ask: Ask) -> dict[str, str]:
    # Identity: the digest is of the bytes as they are published, not as they travel.
    headers = {
        "Host": authority(source),
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "User-Agent": "khonsu",
    }
    if source.credentials is not None:
        encoded = base64.b64encode(source.credentials.reveal().encode()).decode("ascii")
        headers["Authorization"] = f"Basic {encoded}"
    if ask.whole is not None:
        if ask.whole.etag is not None:
            headers["If-None-Match"] = ask.whole.etag
        elif ask.whole.modified is not None:
            headers["If-Modified-Since"] = ask.whole.modified
    elif ask.offset:
        headers["Range"] = f"bytes={ask.offset}-"
        if ask.part.strong_etag is not None:
            headers["If-Range"] = ask.part.strong_etag
    return headers


def _incoming(response: httpx.Response, source: Source, ask: Ask) -> Incoming:
    """Judge an answer by its head."""
    encoding = response.headers.get("content-encoding", "")
    if not ask.pinned and encoding.lower() not in ("", "identity"):
        found = f"the server sends it packed ({encoding[:20]}), though it was asked for the file itself"
        raise fault(source.shown, found, hint="Give the sha256 of what it sends, or another address")
    validator = Validator(_usable(response, "etag"), _usable(response, "last-modified"))
    length = response.headers.get("content-length", "")
    length_bytes = int(length) if length.isascii() and length.isdigit() else None
    if response.status_code == HTTPStatus.NOT_MODIFIED and ask.whole is not None:
        return Incoming(chunks=_nothing(), unchanged=True, validator=ask.whole)
    if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and ask.offset:
        return Incoming(chunks=_nothing(), offset=ask.offset, total_bytes=ask.offset, validator=ask.part)
    if response.status_code == HTTPStatus.PARTIAL_CONTENT and ask.offset:
        total = _content_range(response)[1]
        chunks = _chunks(response, source, ask.offset, total)
        return Incoming(chunks=chunks, offset=ask.offset, total_bytes=total, validator=validator)
    if response.status_code != HTTPStatus.OK:
        raise _refusal(response, source)
    if length_bytes is None and not ask.pinned and response.headers.get("transfer-encoding") is None:
        found = "the server does not say where it ends, so that a cut could not be noticed"
        raise fault(source.shown, found, hint="Give its sha256")
    return Incoming(chunks=_chunks(response, source, 0, length_bytes), total_bytes=length_bytes, validator=validator)


def _usable(response: httpx.Response, header: str) -> str | None:
    """Return a header that will be sent back, if that can be done."""
    value = str(response.headers.get(header, ""))
    return value if value.isascii() and 0 < len(value) <= VALIDATOR_LENGTH_MAX else None


async def _chunks(response: httpx.Response, source: Source, offset: int, total: int | None) -> AsyncIterator[bytes]:
    """Yield the body as it travels; what breaks the connection becomes an error that says where it was cut."""
    received = offset
    try:
        async for chunk in response.aiter_raw():
            received += len(chunk)
            yield chunk
    except _BROKEN as error:
        raise cut(source.shown, received=received, total=total, reason=_reason(error)) from error


async def _nothing() -> AsyncIterator[bytes]:
    nothing: tuple[bytes, ...] = ()
    for chunk in nothing:
        yield chunk


def _content_range(response: httpx.Response) -> tuple[int | None, int | None]:
    """Return where a part begins and how large the whole is (RFC 9110, section 14.4), as far as the server says."""
    found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    if found is None:
        return None, None
    begin, _, total = found.groups()
    return (int(begin) if begin else None), (int(total) if total != "*" else None)


def _continues(response: httpx.Response, ask: Ask) -> bool:
    """Return whether an answer to a question for the rest can be used; otherwise ask for the whole."""
    begin, total = _content_range(response)
    if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        # Either there is no rest, or the file changed; only a digest tells.
        return ask.pinned and total == ask.offset
    if response.status_code == HTTPStatus.PARTIAL_CONTENT:
        same = ask.part.etag in (None, response.headers.get("etag"))
        return same and begin == ask.offset and total is not None
    return True


def _refusal(response: httpx.Response, source: Source) -> ArtifactError:
    """Return an error about a status that gives nothing."""
    status = response.status_code
    hint = ""
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        hint = "It needs credentials that it was not given: https://USER:PASSWORD@HOST/PATH"
    elif status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
        hint = "Check the address: there is nothing"
    retryable = status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _RETRYABLE
    return fault(
        source.shown, f"the server answered {status} {response.reason_phrase}".rstrip(), hint=hint, retryable=retryable
    )


def _no_answer(source: Source, error: Exception) -> ArtifactError:
    """Return an error about a server that could not be asked."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            hint = "If it has an authority of its own, give the agent that authority's certificate (SSL_CERT_FILE)"
            return fault(source.shown, f"the server's certificate is not trusted ({cause.verify_message})", hint=hint)
    return fault(source.shown, f"no answer ({_reason(error)})", retryable=True)


def _reason(error: Exception) -> str:
    """Return what happened, in the words of the first in the chain of causes that says something."""
    if isinstance(error, httpx.ReadTimeout):
        return f"nothing came for {SILENCE_SECONDS:.0f} s"
    if isinstance(error, httpx.TimeoutException):
        return "timed out"
    return next((str(cause) for cause in _causes(error) if str(cause)), type(error).__name__)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what led to it; which of them has the facts depends on the event loop."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
