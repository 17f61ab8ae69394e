"""Where a server is, and whether a proxy stands before it."""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from attrs import frozen

from khonsu.errors import InvalidRequest

HTTPS_PORT: Final = 443


@frozen(kw_only=True)
class Address:
    """A server's URL, taken apart. `prefix` is the path below which it is mounted, or nothing."""

    host: str
    port: int
    prefix: str = ""

    @classmethod
    def parse(cls, url: str) -> Address:
        """Return the address that a URL names.

        Raises:
            InvalidRequest: It is not the URL of a server that speaks HTTPS.

        """
        if "@" in url:  # the message must not repeat a password
            raise InvalidRequest("the URL of a server holds no user and no password", hint=_HINT)
        try:
            parts = urlsplit(url.strip())
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise InvalidRequest(f"{url!r} is not the URL of a server: {error}", hint=_HINT) from None
        if parts.scheme == "http":
            raise InvalidRequest(f"{url} is not encrypted; Khonsu speaks HTTPS only", hint=_HINT)
        if parts.scheme != "https" or not host or parts.query or parts.fragment:
            raise InvalidRequest(f"{url!r} is not the URL of a server", hint=_HINT)
        return cls(host=host, port=port if port is not None else HTTPS_PORT, prefix=parts.path.rstrip("/"))

    @property
    def authority(self) -> str:
        """Return host and port as they stand in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == HTTPS_PORT else f"{host}:{self.port}"

    def __str__(self) -> str:
        """Return the URL."""
        return f"https://{self.authority}{self.prefix}"

    @property
    def loopback(self) -> bool:
        """Return whether it is on this machine."""
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(self.host.partition("%")[0]).is_loopback
        except ValueError:
            return False

    def proxy(self) -> str | None:
        """Return the proxy that the environment (`HTTPS_PROXY`, `NO_PROXY`) names for it; never one for loopback.

        Raises:
            InvalidRequest: The environment names a proxy of a kind that is not supported.

        """
        if self.loopback:
            return None
        from urllib.request import getproxies, proxy_bypass

        proxy = getproxies().get("https")
        if not proxy or proxy_bypass(self.host):
            return None
        if not proxy.startswith("http://"):
            raise InvalidRequest(
                f"HTTPS_PROXY names the proxy {urlsplit(proxy).scheme}://..., and only http:// is supported",
                hint=f"Set NO_PROXY={self.host} to reach the server without it",
            )
        return proxy


_HINT: Final = 'Write it as "https://HOST:PORT"'
