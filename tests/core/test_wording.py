"""Numbers in sentences."""

from __future__ import annotations

import pytest

from edge_runtime.core.wording import counted


@pytest.mark.parametrize(("number", "said"), [(0, "0 parts"), (1, "1 part"), (2, "2 parts"), (21, "21 parts")])
def test_one_is_no_plural(number: int, said: str) -> None:
    assert counted(number, "part") == said
