"""Several checkpoints side by side, one open at a time, and what the log of a training says beside them.

report = compare(sources, of="series", data=images)          # what ``gandissect compare`` and ``gandissect series`` write
"""
