"""Of the recorded variants of a codebase the first is in the default suite, the others in the slow one."""

from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    seen: Counter[str] = Counter()
    for item in items:
        if isinstance(item, pytest.Function) and HERE in item.path.parents and hasattr(item, "callspec"):
            name = f"{item.path.name}::{item.originalname}"
            seen[name] += 1
            if seen[name] > 1:
                item.add_marker(pytest.mark.slow)
