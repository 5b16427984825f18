"""Who may use this server: API keys and the origins of pages.

Decides from header values alone. A wrong key takes as long to refuse as any other.
"""

import hmac
from collections.abc import Sequence
from typing import Final

from stream_server.protocol import BEARER_PREFIX

ANY_ORIGIN: Final = "*"
_SCHEME: Final = "bearer "


class AccessPolicy:
    """The keys and origins that are admitted. No keys: every client; no origins: this host's."""

    def __init__(self, api_keys: Sequence[str], allowed_origins: Sequence[str]) -> None:
        self._api_keys = [key.encode() for key in api_keys]
        self._allowed_origins = [_canonical(origin) for origin in allowed_origins]

    def admits_key(self, authorization: str | None, subprotocols: Sequence[str] = ()) -> bool:
        """Whether the Authorization header, or an offered subprotocol, shows a key."""
        if not self._api_keys:
            return True
        shown = [
            offer.removeprefix(BEARER_PREFIX)
            for offer in subprotocols
            if offer.startswith(BEARER_PREFIX)
        ]
        if authorization is not None and authorization.lower().startswith(_SCHEME):
            shown.append(authorization[len(_SCHEME) :].strip())
        # Every key is compared, so that time tells neither which one matched nor how far.
        # Header values come as Latin-1 of whatever bytes were sent; keys are compared as bytes.
        matches = [
            hmac.compare_digest(one.encode("latin-1", "replace"), key)
            for one in shown
            for key in self._api_keys
        ]
        return any(matches)

    def admits_origin(self, origin: str | None, host: str | None) -> bool:
        """Whether a page of `origin` may connect to this server, which it knows as `host`.

        Only browsers send an origin, and a browser lets any page open a websocket to anywhere.
        """
        if origin is None or ANY_ORIGIN in self._allowed_origins:
            return True
        _, _, page_host = _canonical(origin).partition("://")
        if host is not None and page_host == host.lower():
            return True
        return _canonical(origin) in self._allowed_origins


def _canonical(origin: str) -> str:
    return origin.lower().rstrip("/")
