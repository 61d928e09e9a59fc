"""Python files that a person names: plugins, concepts, networks.

import_file(Path("models.py"), expected="file.py:Class")    # the module, run once under a name of its own
"""

from __future__ import annotations

import importlib.util
import sys
from hashlib import sha256
from pathlib import Path
from types import ModuleType

from gandissect.errors import UsageError


def import_file(path: Path, expected: str) -> ModuleType:
    """The module that a Python file makes; its name holds a hash of the path, so that two files called model.py stay apart.

    Args:
        expected: what should have been typed, for the message.

    Raises:
        UsageError: no such file, or not a Python file. What the file itself raises is passed on.
    """
    where = path.expanduser().resolve()
    if not where.is_file():
        raise UsageError(f"no file {path}; expected {expected}")
    name = f"gandissect_file_{where.stem}_{sha256(str(where).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, where)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is not a Python file; expected {expected}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
