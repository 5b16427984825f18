from dataclasses import FrozenInstanceError

import pytest

from stream_server import protocol
from stream_server.effects import Close, Send


def test_effects_are_values() -> None:
    assert Close(1000, "done") == Close(1000, "done")
    assert Send(protocol.Stop) != Send(protocol.Keepalive)  # type: ignore[arg-type]
    with pytest.raises(FrozenInstanceError):
        Close(1000, "done").code = 1001  # type: ignore[misc]
