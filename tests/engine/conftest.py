from importlib.util import find_spec
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _loops_with_bounds_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Triton's interpreter count loops whose bounds a kernel computes.

    Triton 3.6 converts its arrays of one element by `int()`, which numpy 2.4 no longer does.
    """
    if find_spec("triton") is None:
        return
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patch_with_index(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patch_with_index)
