import pytest

from stream_server.access import AccessPolicy

OPEN = AccessPolicy([], [])
CLOSED = AccessPolicy(["first-key", "zweiter-schlüssel"], [])


def test_without_keys_everybody_is_admitted() -> None:
    assert OPEN.admits_key(None)
    assert OPEN.admits_key("Bearer anything", ["bearer.anything"])


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer first-key",
        "bearer first-key",
        "BEARER  first-key ",
        "Bearer zweiter-schl\xc3\xbcssel",
    ],
)
def test_any_of_the_keys_admits(authorization: str) -> None:
    assert CLOSED.admits_key(authorization)


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "first-key",
        "Basic first-key",
        "Bearer",
        "Bearer ",
        "Bearer first-ke",
        "Bearer first-keyx",
        "Bearer \u20ac",
    ],
)
def test_anything_else_does_not(authorization: str | None) -> None:
    assert not CLOSED.admits_key(authorization)


def test_a_browser_shows_its_key_as_a_subprotocol() -> None:
    assert CLOSED.admits_key(None, ["asr.json.v1", "bearer.first-key"])
    assert not CLOSED.admits_key(None, ["asr.json.v1", "bearer.second-key"])
    assert not CLOSED.admits_key(None, ["asr.json.v1", "first-key"])


@pytest.mark.parametrize(
    ("origin", "host", "admitted"),
    [
        (None, "asr.example:8765", True),
        ("http://asr.example:8765", "asr.example:8765", True),
        ("https://ASR.example", "asr.EXAMPLE", True),
        ("http://asr.example", "asr.example:8765", False),
        ("http://evil.example", "asr.example", False),
        ("http://asr.example.evil", "asr.example", False),
        ("null", "asr.example", False),
        ("http://[broken", "asr.example", False),
        ("http://evil.example", None, False),
    ],
)
def test_pages_of_this_host_alone_are_admitted(
    origin: str | None, host: str | None, admitted: bool
) -> None:
    assert OPEN.admits_origin(origin, host) is admitted


def test_listed_origins_are_admitted_too() -> None:
    policy = AccessPolicy([], ["https://app.example/", "http://localhost:3000"])
    assert policy.admits_origin("https://app.example", "asr.example")
    assert policy.admits_origin("http://localhost:3000", "asr.example")
    assert not policy.admits_origin("http://app.example", "asr.example")


def test_a_star_admits_every_origin() -> None:
    assert AccessPolicy([], ["*"]).admits_origin("http://anything.example", "asr.example")
