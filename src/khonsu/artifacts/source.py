"""Where an artifact may come from: the rules, without any I/O."""

from __future__ import annotations

import hashlib
import re
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from attrs import frozen

from khonsu.artifacts.faults import fault
from khonsu.core.secret import Secret

# From weak to strong: a redirect may only go up.
_STRENGTH: Final = {"http": 0, "https": 1}
_DEFAULT_PORT: Final = {"http": 80, "https": 443}
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
# What no URL holds unescaped (RFC 3986, section 2), and what has fooled parsers when it did.
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\]|[^\x00-\x7f]")
# The reserved characters of RFC 3986, and the sign of what is escaped already.
_NOT_ESCAPED: Final = ":/?#[]@!$&'()*+,;=%~"
_NAME_LENGTH_MAX: Final = 255
URL_LENGTH_MAX: Final = 8192


@frozen(kw_only=True)
class Source:
    """One place that an artifact is asked for at, taken apart once; what is checked is what is dialled."""

    scheme: str
    host: str
    port: int | None
    target: str
    """The path, with the query if there is one."""
    credentials: Secret | None = None
    """`user:password`, decoded."""

    @property
    def origin(self) -> tuple[str, str, int | None]:
        """Return what credentials are bound to (RFC 6454)."""
        return (self.scheme, self.host, self.port)

    @property
    def shown(self) -> str:
        """Return it for people: without the user, password and query, which may be secret."""
        path, query, _ = self.target.partition("?")
        return f"{self.scheme}://{authority(self)}{path}{'?...' if query else ''}"

    @property
    def path(self) -> str:
        """Return the path, decoded."""
        return unquote(self.target.partition("?")[0])

    @property
    def name(self) -> str:
        """Return the file name that the address suggests; `artifact` where it suggests none."""
        name = self.path.rpartition("/")[2]
        usable = name not in ("", ".", "..") and "\0" not in name and len(name.encode()) <= _NAME_LENGTH_MAX
        return name if usable else "artifact"


@frozen(kw_only=True)
class Wanted:
    """What somebody asks for: a place and, if it is pinned, the SHA-256 of what must come from there."""

    source: Source
    sha256: str | None

    @property
    def key(self) -> str:
        """Return what makes two downloads the same one: the digest, else the address."""
        return self.sha256 or url_key(self.source)


def authority(source: Source) -> str:
    """Return host and port as they stand in an address and in `Host` (RFC 9110, section 7.2)."""
    host = f"[{source.host}]" if ":" in source.host else source.host
    port = "" if source.port in (None, _DEFAULT_PORT.get(source.scheme)) else f":{source.port}"
    return f"{host}{port}"


def url_key(source: Source) -> str:
    """Return a name for an address that does not tell it; no digest looks like it."""
    credentials = source.credentials.reveal() if source.credentials else ""
    text = "\n".join((source.scheme, source.host, str(source.port), source.target, credentials))
    return "url-" + hashlib.sha256(text.encode()).hexdigest()


def parse_wanted(url: str, sha256: str | None) -> Wanted:
    """Take apart what a job asks for.

    Raises:
        ArtifactError: The address or digest is none, or the address is not allowed without a digest.

    """
    digest = sha256.strip().lower().removeprefix("sha256:") if sha256 is not None else None
    source = _parse(url, shown=_shown_raw(url))
    if digest is not None and not _DIGEST.fullmatch(digest):
        raise fault(source.shown, f"its sha256 is given as {sha256!r}", hint="A SHA-256 has 64 hexadecimal digits")
    check_target(source, pinned=digest is not None)
    return Wanted(source=source, sha256=digest)


def redirected(current: Source, location: str, *, pinned: bool) -> Source:
    """Return where a redirect leads to. Credentials stay within their origin; those in the redirect are dropped.

    Raises:
        ArtifactError: It leads to a weaker scheme, to a file, or nowhere.

    """
    base = f"{current.scheme}://{authority(current)}{current.target}"
    try:
        # Servers do send raw letters here; what browsers do with them is to escape them.
        joined = urljoin(base, quote(location, safe=_NOT_ESCAPED))
    except ValueError as error:
        raise fault(current.shown, f"redirects to an address that cannot be read ({error})") from error
    found = _parse(joined, shown=current.shown)
    credentials = current.credentials if found.origin == current.origin else None
    found = Source(scheme=found.scheme, host=found.host, port=found.port, target=found.target, credentials=credentials)
    check_target(found, pinned=pinned, previous=current)
    return found


def check_target(target: Source, *, pinned: bool, previous: Source | None = None) -> None:
    """Decide whether a connection to a place may be made; every first request and every redirect asks here.

    Args:
        target: Where the connection would go.
        pinned: Whether a digest decides over what comes back.
        previous: Where the redirect came from.

    Raises:
        ArtifactError: It may not.

    """
    if previous is not None and _STRENGTH.get(target.scheme, -1) < _STRENGTH[previous.scheme]:
        raise fault(previous.shown, f"redirects to {target.shown}, which is weaker", hint="Ask for a better address")
    if target.scheme != "https" and not pinned:
        hint = "Give its sha256, or use https"
        raise fault(target.shown, f"{target.scheme} without a digest could be anything", hint=hint)


def _parse(url: str, *, shown: str) -> Source:
    if len(url) > URL_LENGTH_MAX or _FORBIDDEN.search(url):
        hint = "Write spaces and other special characters as %20 and the like"
        raise fault(shown, "the address is too long or has a character that none may have", hint=hint)
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").lower()
    except ValueError as error:
        raise fault(shown, f"the address cannot be read ({error})", hint="Write https://HOST/PATH") from error
    if parts.scheme == "file":
        return _parse_file(parts, host, shown)
    if parts.scheme not in _STRENGTH:
        raise fault(shown, f"{parts.scheme or 'no scheme'} is not supported", hint="Known are https, http and file")
    if not host or port == 0:
        raise fault(shown, "the address names no host", hint=f"Write {parts.scheme}://HOST/PATH")
    credentials = None
    if parts.username is not None:
        credentials = Secret(f"{unquote(parts.username)}:{unquote(parts.password or '')}")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    port = port or _DEFAULT_PORT[parts.scheme]
    return Source(scheme=parts.scheme, host=host, port=port, target=target, credentials=credentials)


def _parse_file(parts: SplitResult, host: str, shown: str) -> Source:
    if host not in ("", "localhost") or not parts.path.startswith("/") or "\0" in unquote(parts.path):
        raise fault(shown, "the address names no file of this machine", hint="Write file:///ABSOLUTE/PATH")
    if parts.query or parts.fragment:
        raise fault(shown, "a file has no ? and no # part", hint="Write them as %3F and %23")
    return Source(scheme="file", host="", port=None, target=parts.path)


def _shown_raw(url: str) -> str:
    """Return a text that may be no address at all, without what may be secret in it."""
    shown = re.sub(r"//[^/@]*@", "//", url.partition("?")[0])
    return repr(shown if len(shown) <= _NAME_LENGTH_MAX else shown[:_NAME_LENGTH_MAX] + "...")
