"""``python -m gandissect`` is the command ``gandissect``."""

from gandissect.cli import main

main()
