"""The settings that a codebase writes beside its weights.

settings_beside(Path("models/default/model_30.pt"))     # {"config.json": {"image_size": 64, ...}}
"""

from __future__ import annotations

import json
from pathlib import Path

_NAMES = ("config.json", ".config.json")
_MAX_BYTES = 1 << 20


def settings_beside(path: Path) -> dict[str, object]:
    """What the ``config.json`` (or ``.config.json``) in the checkpoint's folder says, under "config.json"; empty where there is none.

    A file that is not a JSON mapping, or longer than 1 MiB, counts as none.
    """
    for name in _NAMES:
        beside = path.with_name(name)
        try:
            if beside == path or not beside.is_file() or beside.stat().st_size > _MAX_BYTES:
                continue
            settings = json.loads(beside.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(settings, dict):
            return {"config.json": settings}
    return {}
