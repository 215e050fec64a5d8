"""Each instruction set in turn."""

from __future__ import annotations

import pytest

from adgan_fast import ops
from tests.support.native import HERE


@pytest.fixture(params=ops.INSTRUCTION_SETS)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The operator runs with the kernels of this instruction set."""
    if request.param not in HERE:
        pytest.skip(f"this processor has no {request.param}, only {', '.join(HERE)}")
    right, place = ops.native_search, HERE.index(request.param)

    def search(*arguments, **more):
        return right(*ops.SearchArguments(*arguments, **more)._replace(isa=place))

    monkeypatch.setattr(ops, "native_search", search)
    return request.param
