"""What chance explains of the overlaps: shuffled masks, floors, p-values, and intervals of what is left.

null = shuffled_overlaps(active, areas, rng=rng, draws=999)                    # chance.py: float32 [P, U, K]
p_values(active.overlaps(areas), null)                                         # float64 [U, K]
"""
