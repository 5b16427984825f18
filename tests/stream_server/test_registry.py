from itertools import count

from stream_server.registry import Registry


def test_every_session_has_its_own_id_and_token() -> None:
    registry = Registry(100)
    admissions = [registry.admit() for _ in range(100)]
    secrets = {name for one in admissions if one for name in (one.session_id, one.token)}
    assert len(secrets) == 200
    assert all(len(secret) >= 22 for secret in secrets)


def test_nobody_is_admitted_beyond_capacity_until_somebody_leaves() -> None:
    registry = Registry(2)
    first, second = registry.admit(), registry.admit()
    assert first is not None
    assert second is not None
    assert registry.admit() is None
    assert len(registry) == 2
    registry.release(first)
    assert registry.admit() is not None
    assert registry.admit() is None


def test_a_closed_registry_admits_nobody_and_still_lets_go() -> None:
    tokens = count()
    registry = Registry(2, new_token=lambda: str(next(tokens)))
    admission = registry.admit()
    assert admission is not None
    assert (admission.session_id, admission.token) == ("0", "1")
    registry.close()
    assert registry.admit() is None
    registry.release(admission)
    assert len(registry) == 0
