"""Plain HTTP on the websocket's port: is it alive, is it ready, what does it run, the page.

Decides status codes and bodies from the server's condition; leaves changing that to `server`,
and who is let in too.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from engine.events import ModelInfo
from stream_server.access import AccessPolicy
from stream_server.metrics import Exporter
from stream_server.protocol import STREAM_PATH

WEB_DEMO: Final = Path(__file__).parent.parent / "web_demo"
# The clip of `starling demo`, for those who open the page without a microphone.
SAMPLE: Final = Path(__file__).parent.parent / "clients" / "demo" / "demo.flac"
SAMPLE_PATH: Final = "sample.flac"

# Everything the page needs comes from this server, as files: nothing inline can be injected.
# Audio may also be a blob, which is what a browser makes of a dropped file; audio worklets are
# scripts to this policy.
PAGE_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; media-src 'self' blob:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "permissions-policy": "microphone=(self)",
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    # Ask each time, by ETag: a new server is not shown with files of the one before it.
    "cache-control": "no-cache",
}

# Written here, because the system's own table is wrong on some machines, and a browser runs no
# module that comes as text/plain.
MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".flac": "audio/flac",
}

# Why a request with these headers would not be upgraded; None where it would.
Refusal = Callable[[Headers], Response | None]


@dataclass(slots=True)
class Condition:
    """How the server is. Touched only by the event loop's thread."""

    draining: bool = False
    failure: Exception | None = None

    @property
    def is_ready(self) -> bool:
        """Whether a new session would be served."""
        return not self.draining and self.failure is None


def http_routes(
    condition: Condition,
    model: Callable[[], ModelInfo],
    policy: AccessPolicy,
    refusal: Refusal,
    exporter: Exporter | None,
) -> Sequence[BaseRoute]:
    """Every route but the websocket's; the page comes last, since it takes what is left.

    Without an exporter there is no `/metrics`.
    """

    async def healthz(request: Request) -> Response:
        if condition.failure is not None:
            return PlainTextResponse("the engine has failed\n", 500)
        return PlainTextResponse("alive\n")

    async def readyz(request: Request) -> Response:
        if condition.is_ready:
            return PlainTextResponse("ready\n")
        why = "draining" if condition.failure is None else "the engine has failed"
        return PlainTextResponse(f"{why}\n", 503)

    async def models(request: Request) -> Response:
        if not policy.admits_key(request.headers.get("authorization")):
            return unauthorized()
        info = model()
        return JSONResponse(
            {
                "object": "list",
                "data": [
                    {
                        "id": info.name,
                        "object": "model",
                        "owned_by": "starling",
                        "languages": list(info.languages),
                        "tasks": list(info.tasks),
                    }
                ],
            }
        )

    async def metrics(request: Request) -> Response:
        # Open as health is: sums over all sessions, nothing of any one of them.
        if exporter is None:
            return PlainTextResponse("this server shows no metrics\n", 404)
        body, media_type = exporter.render(request.headers.get("accept", ""))
        return Response(body, media_type=media_type)

    async def not_upgraded(request: Request) -> Response:
        # A browser tells no page why a websocket was refused. This does.
        if (refused := refusal(request.headers)) is not None:
            return refused
        upgrade = {"upgrade": "websocket", "connection": "Upgrade"}
        return PlainTextResponse(f"{STREAM_PATH} is a websocket\n", 426, upgrade)

    return [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
        Route("/v1/models", models),
        Route(STREAM_PATH, not_upgraded),
        Mount("/", PageFiles(directory=WEB_DEMO, html=True)),
    ]


def unauthorized() -> Response:
    """The answer to a missing or wrong key."""
    return PlainTextResponse(
        "a valid API key is needed: Authorization: Bearer KEY\n",
        401,
        {"www-authenticate": "Bearer"},
    )


class PageFiles(StaticFiles):
    """The page's files and its sample clip, with their headers and media types."""

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        """The file of a path within the page; no file is (anything, None)."""
        if path == SAMPLE_PATH:
            return str(SAMPLE), SAMPLE.stat()
        return super().lookup_path(path)

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """The file, or that it has not changed."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(PAGE_HEADERS)
        media_type = MEDIA_TYPES.get(Path(full_path).suffix)
        if media_type is not None and "content-type" in response.headers:
            response.headers["content-type"] = media_type
        return response
