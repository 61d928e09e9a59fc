import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from random import Random

import pytest
import torch
from torch import Tensor

from gandissect.concepts import CallableSegmenter, Vocabulary
from gandissect.gan import Gan
from gandissect.gathering import CHUNK, Partial
from gandissect.paired import BitsSpec, CrossSpec
from gandissect.reducers import KeepSpec, MomentsSpec, TailSpec
from gandissect.session import Activations, CellAreas, Images, Masks, Scores, Session, Want
from gandissect.sharding import ALONE, Group, ProcessesApart, Shard
from gandissect.testing import tiny_gan

BRIGHT = Vocabulary([CallableSegmenter(lambda images: images.mean(1) > 0, ["bright"])])
WANTS = [
    Want((Activations("act2"),), MomentsSpec(), 200),
    Want((Activations("act2"),), TailSpec(90), 200),
    Want((Activations("act2"), CellAreas(8, 8)), CrossSpec(), 170),
    Want((Images(),), KeepSpec(), 10),
    Want((Scores(),), KeepSpec(), 200),
    Want((Masks(),), BitsSpec(), 130),
]


class Threads(Shard):
    """A process of a group, played by a thread; what is exchanged goes through a list."""

    def __init__(self, rank: int, size: int, table: list[Mapping[str, Tensor]], barrier: threading.Barrier) -> None:
        self.rank, self.size = rank, size
        self._table, self._barrier = table, barrier

    def exchange(self, what: str, work: Callable[[], Mapping[str, Tensor]]) -> Iterator[Mapping[str, Tensor]]:
        self._table[self.rank] = work()
        self._barrier.wait(60)
        states = list(self._table)
        self._barrier.wait(60)
        yield from states


class Fade:
    """An edit that dims each row more than the one before."""

    def __init__(self, rows: int) -> None:
        self.factors, self.row = torch.linspace(1, 0, rows), 0

    def begin(self, row: int) -> None:
        self.row = row

    def __call__(self, _layer: str, activation: Tensor) -> Tensor:
        rows = torch.arange(self.row, self.row + len(activation)).clamp(max=len(self.factors) - 1)
        return activation * self.factors[rows, None, None, None]


def in_threads(size: int) -> list[list[Tensor]]:
    """The evidence as each of ``size`` processes gets it."""
    barrier, table = threading.Barrier(size), [{}] * size  # type: ignore[var-annotated]
    shards = [Threads(rank, size, table, barrier) for rank in range(size)]
    gans = [tiny_gan("random") for _ in shards]  # drawn one after the other: torch has one random state for all threads
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(evidence, shards, gans))


def evidence(shard: Shard, gan: Gan) -> list[Tensor]:
    session = Session(gan, vocabulary=BRIGHT, n=200, shard=shard)
    session.prepare(WANTS)
    found = [torch.tensor([session.passes, session.images_generated])]
    for want in WANTS:
        result = session[want]
        values = [result] if isinstance(result, Tensor) else vars(result).values()
        found += [value for value in values if isinstance(value, Tensor)]
    edited = session.generate(session.latents(75), edit=Fade(75), layers=["act2"])
    return [*found, edited, session.score(edited), session.segment(edited)]


@pytest.mark.parametrize("size", [2, 3, 5])
def test_evidence_has_the_same_bits_for_any_number_of_processes(size: int) -> None:
    alone = evidence(ALONE, tiny_gan("random"))
    for other in in_threads(size):
        assert all(torch.equal(a, b) for a, b in zip(alone, other, strict=True))


def test_shares_are_consecutive_complete_and_even() -> None:
    for size in range(1, 6):
        for count in range(20):
            shares = [Threads(rank, size, [], threading.Barrier(1)).share(count) for rank in range(size)]
            assert [i for share in shares for i in share] == list(range(count))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_rounded_sums_have_the_same_bits_whoever_made_which_chunk() -> None:
    want = Want((Images(),), MomentsSpec(), 11 * CHUNK - 5)
    values = (
        torch.randn(want.n, 3, 2, 2, generator=torch.Generator().manual_seed(1))
        * 10.0 ** torch.arange(-6, -3)[:, None, None]
    )

    def made(chunks: list[int]) -> Partial:
        part = Partial(want)
        for chunk in chunks:
            rows = range(chunk * CHUNK, min((chunk + 1) * CHUNK, want.n))
            reducer = part.begin()
            reducer.add(rows, values[rows.start : rows.stop])
            part.end(chunk, reducer)
        return part

    reference = made(list(range(11))).result()
    for seed in range(8):
        order = Random(seed).sample(range(11), 11)
        total = Partial(want)
        for start in range(0, 11, 3):
            total.absorb(Partial.of(want, made(order[start : start + 3]).state()))
        result = total.result()
        assert all(
            torch.equal(getattr(result, name), getattr(reference, name)) for name in ("mean", "variance", "minimum")
        )


def in_group(rank: int, folder: str) -> None:
    """One of two real processes: what they exchange, and how differences and failures end."""
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        shard = Group()
        got = [
            state["half"].tolist() for state in shard.exchange("halves", lambda: {"half": torch.full((2,), rank == 1)})
        ]
        assert got == [[False, False], [True, True]]
        assert shard.union("notes", ["both", f"of {rank}"]) == ["both", "of 0", "of 1"]
        assert shard.rows("rows", 5, 2, lambda rows: torch.tensor(list(rows))).tolist() == [0, 1, 2, 3, 4]

        def work() -> dict[str, Tensor]:
            if rank == 1:
                raise KeyError("as planned")
            return {}

        with pytest.raises(KeyError, match="as planned"):
            list(shard.exchange("a failure", work))
        with pytest.raises(ProcessesApart, match=r"process 0 asks for this \(call 5\); process 1 asks for that"):
            list(shard.exchange("this" if rank == 0 else "that", dict))
        (Path(folder) / f"passed {rank}").touch()
    finally:
        dist.destroy_process_group()


def test_real_processes_exchange_share_failures_and_notice_that_they_differ(tmp_path: Path) -> None:
    from torch.multiprocessing.spawn import spawn

    spawn(partial(in_group, folder=str(tmp_path)), nprocs=2)
    assert {path.name for path in tmp_path.glob("passed*")} == {"passed 0", "passed 1"}
