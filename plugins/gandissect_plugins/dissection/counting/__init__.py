"""Where units are active, above which level, and how much of each concept lies there: exact counts, from one pass.

cells = above_threshold(tail, quantile=0.01, samples=1000, cells=1024)[1]      # overlap.py
cells.overlaps(areas)                                                          # active.py: float64 [U, K]
"""
