"""Statistics that stream and merge: ``add`` batches, ``merge`` shards, read the ``result``.

    reducer = Moments()
    reducer.add(range(0, 64), activations)              # float32 [64, C, H, W]
    reducer.merge(other)                                # from another process
    reducer.result().mean                               # float64 [C]

A specification of a reducer (``MomentsSpec()``, ``KeepSpec("float16")``) is a frozen dataclass, so that two analyzers that ask for the same
thing get the same object; calling it makes an empty reducer.
"""

from gandissect.reducers.paired import Bits, BitsResult, BitsSpec, Cross, CrossResult, CrossSpec
from gandissect.reducers.streaming import (
    Keep,
    KeepSpec,
    Moments,
    MomentsResult,
    MomentsSpec,
    Reducer,
    ReducerSpec,
    State,
)
from gandissect.reducers.tails import Tail, TailResult, TailSpec, tail_length

__all__ = [
    "Bits",
    "BitsResult",
    "BitsSpec",
    "Cross",
    "CrossResult",
    "CrossSpec",
    "Keep",
    "KeepSpec",
    "Moments",
    "MomentsResult",
    "MomentsSpec",
    "Reducer",
    "ReducerSpec",
    "State",
    "Tail",
    "TailResult",
    "TailSpec",
    "tail_length",
]
