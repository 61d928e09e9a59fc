"""One pass over the samples, in chunks: shared out among processes, kept on disk as it goes, put together in a fixed order.

results = gather([Want((Images(),), KeepSpec(), 1000)], pass_of(runner), ALONE)

Reducers whose merging rounds (sums of floats) are merged along a binary tree over chunks of ``CHUNK`` samples, whose shape depends on
the number of samples alone: whoever made which chunk, in one process or in many, before or after a kill, the result has the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from gandissect.passes.sharding import Shard
from gandissect.progress import Advance
from gandissect.reducers import Reducer, ReducerSpec
from gandissect.streams import Batch, Stream

CHUNK = 32
"""Samples that are taken together; a multiple of the networks' block."""
_Node = tuple[int, int]
_WHOLE: _Node = (64, 0)
"""The tree's node (level, place) of reducers whose merging is exact: one for all chunks."""


@dataclass(frozen=True)
class Want:
    """Something to be gathered: streams, the reducer that takes them in, over how many samples, generated or real."""

    streams: tuple[Stream, ...]
    reduce: ReducerSpec
    n: int
    real: bool = False

    @property
    def chunks(self) -> int:
        """How many chunks its samples are."""
        return -(-self.n // CHUNK)


class Partial:
    """What is known of one want: which chunks, and a reducer for each node of the tree over them that is complete."""

    def __init__(self, want: Want) -> None:
        self.want = want
        self.chunks: set[int] = set()
        self._nodes: dict[_Node, Reducer] = {}
        self._exact = want.reduce().exact

    def begin(self) -> Reducer:
        """The reducer that is to take in the next chunk."""
        return self._nodes.setdefault(_WHOLE, self.want.reduce()) if self._exact else self.want.reduce()

    def end(self, chunk: int, reducer: Reducer) -> None:
        """Note that ``reducer``, given by :meth:`begin`, has taken in ``chunk``."""
        self.chunks.add(chunk)
        if not self._exact:
            self._take((0, chunk), reducer)

    def absorb(self, other: Partial) -> None:
        """Take in what another one knows, of other chunks."""
        assert not self.chunks & other.chunks, "a chunk would count twice"
        self.chunks |= other.chunks
        for node, reducer in other._nodes.items():
            self._take(node, reducer)

    def _take(self, node: _Node, reducer: Reducer) -> None:
        """Put a reducer into the tree and merge neighbours, left with right, as far up as both are there."""
        if node == _WHOLE and _WHOLE in self._nodes:
            self._nodes[_WHOLE].merge(reducer)
            return
        while (sibling := (node[0], node[1] ^ 1)) in self._nodes:
            other = self._nodes.pop(sibling)
            left, right = (reducer, other) if sibling > node else (other, reducer)
            left.merge(right)
            node, reducer = (node[0] + 1, node[1] // 2), left
        self._nodes[node] = reducer

    def state(self) -> dict[str, Tensor]:
        """Everything it knows, as tensors: the chunks, and each node's state under ``level.place.name``."""
        flat = {"chunks": torch.tensor(sorted(self.chunks), dtype=torch.int64)}
        for (level, place), reducer in self._nodes.items():
            flat[f"{level}.{place}"] = torch.zeros(0)
            flat |= {f"{level}.{place}.{name}": value for name, value in reducer.state().items()}
        return flat

    @classmethod
    def of(cls, want: Want, state: Mapping[str, Tensor]) -> Partial:
        """The one that ``state`` was taken from."""
        partial = cls(want)
        partial.chunks = set(state["chunks"].tolist())
        for key in (key for key in state if key.count(".") == 1):
            level, place = key.split(".")
            reducer = want.reduce()
            reducer.load({name.removeprefix(f"{key}."): state[name] for name in state if name.startswith(f"{key}.")})
            partial._nodes[int(level), int(place)] = reducer
        return partial

    def result(self) -> object:
        """The want's result, when all chunks are known."""
        assert self.chunks == set(range(self.want.chunks)), "chunks are missing"
        first, *rest = [self._nodes[node] for node in sorted(self._nodes, key=lambda node: node[1] << node[0])]
        for reducer in rest:
            first.merge(reducer)
        return first.result()


class Store(AbstractContextManager["Store"]):
    """Where finished chunks are kept while a pass goes on; as it is, nowhere. See :mod:`gandissect.passes.cache`."""

    def known(self, want: Want) -> Partial:
        """What was kept of ``want`` by an earlier run."""
        return Partial(want)

    def due(self) -> bool:
        """Whether it is time to keep what is there."""
        return False

    def keep(self, partials: Sequence[Partial]) -> None:
        """Keep what is known of some wants, all of it of chunks that were not kept before."""

    def __exit__(self, *_error: object) -> None:
        """Nothing to give back."""


Samples = Callable[[int, int, Sequence[Stream]], Iterator[Batch]]
"""The batches of the samples start..stop-1 with what streams need of them."""


def gather(wants: Sequence[Want], samples: Samples, shard: Shard, store: Store, advance: Advance) -> list[object]:
    """The results of ``wants``, from one pass over those samples that are not in ``store``.

    Args:
        wants: at least one.
        samples: makes batches.
        shard: makes its share of the chunks; every process gets all results.
        store: asked for finished chunks first, and given new ones now and then.
        advance: told about samples that are done, by anyone.
    """
    known = _known(wants, shard, store)
    n = max(want.n for want in wants)
    ahead = [
        chunk
        for chunk in range(-(-n // CHUNK))
        if any(chunk < want.chunks and chunk not in partial.chunks for want, partial in zip(wants, known, strict=True))
    ]
    share = shard.share(len(ahead))
    mine = ahead[share.start : share.stop]
    advance(n - _samples(ahead, n))

    made: list[Partial] = []

    def work() -> dict[str, Tensor]:
        made.extend(_made(wants, known, mine, samples, store, advance))
        return {}

    for _ in shard.exchange(f"a pass of {n} samples for {len(wants)} wants", work):
        pass
    advance(_samples(ahead, n) - _samples(mine, n))
    results = []
    for place, want in enumerate(wants):
        results.append(_together(want, known[place], made[place], shard).result())
        known[place] = made[place] = Partial(want)  # its memory is free for the next
    return results


def _samples(chunks: Sequence[int], n: int) -> int:
    return sum(min(CHUNK, n - chunk * CHUNK) for chunk in chunks)


def _known(wants: Sequence[Want], shard: Shard, store: Store) -> list[Partial]:
    """What is in the first process's store; the others learn of which chunks that is and leave the rest to it."""
    known = [store.known(want) if shard.first else Partial(want) for want in wants]
    said = {str(place): torch.tensor(sorted(partial.chunks), dtype=torch.int64) for place, partial in enumerate(known)}
    for rank, state in enumerate(shard.exchange("what was kept", lambda: said)):
        if rank == 0 and not shard.first:
            for place, partial in enumerate(known):
                partial.chunks = set(state[str(place)].tolist())
    return known


def _made(
    wants: Sequence[Want],
    known: Sequence[Partial],
    chunks: Sequence[int],
    samples: Samples,
    store: Store,
    advance: Advance,
) -> list[Partial]:
    """What this process finds out about ``chunks``, each for the wants that lack it."""
    made, fresh = [Partial(want) for want in wants], [Partial(want) for want in wants]

    def settle() -> None:
        for place, part in enumerate(fresh):
            made[place].absorb(part)
            fresh[place] = Partial(part.want)

    for chunk in chunks:
        lacking = [
            part
            for part, before in zip(fresh, known, strict=True)
            if chunk < part.want.chunks and chunk not in before.chunks
        ]
        _one_chunk(chunk, lacking, samples, advance)
        if store.due():
            store.keep(fresh)
            settle()
    settle()
    return made


def _one_chunk(chunk: int, lacking: Sequence[Partial], samples: Samples, advance: Advance) -> None:
    start, stop = chunk * CHUNK, min((chunk + 1) * CHUNK, max(part.want.n for part in lacking))
    taking = [(part, part.begin()) for part in lacking]
    for batch in samples(start, stop, [stream for part in lacking for stream in part.want.streams]):
        for part, reducer in taking:
            inside = sum(index < part.want.n for index in batch.indices)
            if inside:
                reducer.add(batch.indices[:inside], *(batch.get(stream)[:inside] for stream in part.want.streams))
        advance(len(batch.indices))
    for part, reducer in taking:
        part.end(chunk, reducer)


def _together(want: Want, known: Partial, made: Partial, shard: Shard) -> Partial:
    """What all processes have found out about a want."""
    if shard.first:
        known.absorb(made)
        made = known
    if shard.size == 1:
        return made
    total = Partial(want)
    for state in shard.exchange(f"the results of {type(want.reduce).__name__}", made.state):
        total.absorb(Partial.of(want, state))
    return total
