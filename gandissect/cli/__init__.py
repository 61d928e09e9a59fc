"""The command line: a thin shell over ``open`` and ``analyze``.

gandissect analyze ckpt.pt -o report.html
"""

from gandissect.cli.main import main

__all__ = ["main"]
