import engine.errors
from engine.errors import EngineError


def test_one_base_catches_whatever_the_engine_raises_on_purpose() -> None:
    raised = [kind for kind in vars(engine.errors).values() if isinstance(kind, type)]
    assert len(raised) > 1
    assert all(issubclass(kind, EngineError) for kind in raised)
