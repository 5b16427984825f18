"""Plain HTTP on the websocket's port: is it alive, is it ready, what does it run, the page.

Decides status codes and bodies from the server's condition; leaves changing that to `server`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.events import ModelInfo
from stream_server.access import AccessPolicy
from stream_server.protocol import STREAM_PATH

WEB_DEMO: Final = Path(__file__).parent.parent / "web_demo"

# Everything the page needs comes from this server, as files: nothing inline can be injected.
PAGE_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


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
    condition: Condition, model: Callable[[], ModelInfo], policy: AccessPolicy
) -> Sequence[BaseRoute]:
    """Every route but the websocket's; the page comes last, since it takes what is left."""

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

    async def not_upgraded(request: Request) -> Response:
        upgrade = {"upgrade": "websocket", "connection": "Upgrade"}
        return PlainTextResponse(f"{STREAM_PATH} is a websocket\n", 426, upgrade)

    return [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/v1/models", models),
        Route(STREAM_PATH, not_upgraded),
        Mount("/", _with_headers(StaticFiles(directory=WEB_DEMO, html=True))),
    ]


def unauthorized() -> Response:
    """The answer to a missing or wrong key."""
    return PlainTextResponse(
        "a valid API key is needed: Authorization: Bearer KEY\n",
        401,
        {"www-authenticate": "Bearer"},
    )


def _with_headers(app: ASGIApp) -> ASGIApp:
    extra = [(name.encode(), value.encode()) for name, value in PAGE_HEADERS.items()]

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        await app(scope, receive, send_with_headers)

    return wrapped
