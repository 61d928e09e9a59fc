"""What was opened, what it makes, how it is built and whether it is healthy; and, after dissection, what is found where.

gandissect analyze ckpt.pt -a overview,topology
"""

from __future__ import annotations

from gandissect.analyzer import Analyzer
from gandissect.plugins import hookimpl
from gandissect_plugins.overview.overview import Overview
from gandissect_plugins.overview.topology import Topology


@hookimpl
def register_analyzers() -> list[type[Analyzer]]:
    """What this plugin offers."""
    return [Overview, Topology]
