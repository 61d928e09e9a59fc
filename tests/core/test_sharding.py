import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from random import Random
from typing import Literal, TypeVar

import pytest
import torch
from gandissect_plugins.dissection import dissect
from torch import Tensor

from gandissect.concepts import CallableSegmenter, Vocabulary
from gandissect.gan import Gan
from gandissect.passes.gathering import CHUNK, Partial
from gandissect.passes.sharding import ALONE, Group, ProcessesApart, Shard, given_out
from gandissect.reducers import BitsSpec, CrossSpec, KeepSpec, MomentsSpec, TailSpec
from gandissect.session import Activations, CellAreas, Images, Masks, Scores, Session, Want
from gandissect.testing import tiny_gan

T = TypeVar("T")

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


def in_threads(size: int, work: Callable[[Shard, Gan], T], kind: Literal["random", "planted"] = "random") -> list[T]:
    """What each of ``size`` processes gets."""
    barrier = threading.Barrier(size)
    table: list[Mapping[str, Tensor]] = [{}] * size
    shards = [Threads(rank, size, table, barrier) for rank in range(size)]
    gans = [tiny_gan(kind) for _ in shards]  # drawn one after the other: torch has one random state for all threads
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(work, shards, gans))


def evidence(shard: Shard, gan: Gan) -> list[Tensor]:
    session = Session(gan, vocabulary=BRIGHT, n=200, shard=shard)
    session.prepare(WANTS)
    found = [torch.tensor([session.passes, session.images_generated])]
    for want in WANTS:
        result = session[want]
        values = [result] if isinstance(result, Tensor) else vars(result).values()
        found += [value for value in values if isinstance(value, Tensor)]
    edited = session.generate(session.latents(75), edit=Fade(75), layers=["act2"])
    draws = [lambda name=name: session.rng(name).random(5) for name in "abcdefg"]
    found += [torch.from_numpy(drawn) for drawn in session.share_out("draws", draws, [1, 2, 9, 1, 1, 3, 1])]
    return [*found, edited, session.score(edited), session.segment(edited)]


@pytest.mark.parametrize("size", [2, 3, 5])
def test_evidence_has_the_same_bits_for_any_number_of_processes(size: int) -> None:
    alone = evidence(ALONE, tiny_gan("random"))
    for other in in_threads(size, evidence):
        assert all(torch.equal(a, b) for a, b in zip(alone, other, strict=True))


@pytest.mark.parametrize("options", [{}, {"levels": "iqr", "resolution": "bilinear"}, {"levels": "0.005,0.02"}])
def test_a_dissection_has_the_same_bits_for_any_number_of_processes(options: dict[str, str]) -> None:
    def work(shard: Shard, gan: Gan) -> list[Tensor]:
        result = dissect(Session(gan, vocabulary=BRIGHT, n=60, shard=shard), draws=99, **options)  # type: ignore[arg-type]
        return [value for table in result.layers for value in vars(table).values() if isinstance(value, Tensor)]

    alone = work(ALONE, tiny_gan("planted"))
    for other in in_threads(2, work, "planted"):
        assert all(torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in zip(alone, other, strict=True))


def test_shares_are_consecutive_complete_and_even() -> None:
    for size in range(1, 6):
        for count in range(20):
            shares = [Threads(rank, size, [], threading.Barrier(1)).share(count) for rank in range(size)]
            assert [i for share in shares for i in share] == list(range(count))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_longest_tasks_are_given_out_first_and_evenly() -> None:
    assert given_out([1, 5, 4, 3, 3], 2) == [[1, 4], [2, 3, 0]]
    assert given_out([1, 1], 3) == [[0], [1], []]


def test_each_task_is_run_by_one_process_and_all_get_its_result() -> None:
    ran: list[int] = []

    def task(number: int) -> dict[str, int]:
        ran.append(number)
        return {"square": number**2}

    def work(shard: Shard, _gan: Gan) -> list[dict[str, int]]:
        return shard.share_out("squares", [partial(task, number) for number in range(8)])

    assert in_threads(3, work) == [[{"square": number**2} for number in range(8)]] * 3
    assert sorted(ran) == list(range(8))


def test_a_task_that_asks_for_what_all_processes_make_is_refused_even_in_one_process() -> None:
    session = Session(tiny_gan("random"), n=20)
    with pytest.raises(RuntimeError, match="pictures, which one process does, asks for images"):
        session.share_out("pictures", [lambda: session.generate(session.latents(5))])
    with pytest.raises(RuntimeError, match="pictures, which one process does"):
        session.share_out("pictures", [lambda: session.images(5)])
    assert len(session.generate(session.latents(5))) == 5


def test_only_the_first_process_does_what_is_for_the_first_and_alone_it_may_ask_for_anything() -> None:
    ranks = [Threads(rank, 2, [], threading.Barrier(1)) for rank in range(2)]
    assert [shard.by_first("a hook", lambda: "told") for shard in ranks] == ["told", None]
    rows = partial(torch.arange, 3)
    with pytest.raises(RuntimeError, match="a hook, which one process does"):
        ranks[0].by_first("a hook", lambda: ranks[0].rows("rows", 3, 1, lambda _rows: rows()))
    assert ALONE.by_first("a hook", lambda: len(ALONE.rows("rows", 3, 1, lambda _rows: rows()))) == 3


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

        parts = shard.share_out("tasks", [partial(torch.full, (size,), rank) for size in range(3)], [1, 1, 5])
        assert [part.tolist() for part in parts] == [[], [1], [0, 0]]

        def work() -> dict[str, Tensor]:
            if rank == 1:
                raise KeyError("as planned")
            return {}

        with pytest.raises(KeyError, match="as planned"):
            list(shard.exchange("a failure", work))
        with pytest.raises(ProcessesApart, match=r"process 0 asks for this \(call 6\); process 1 asks for that"):
            list(shard.exchange("this" if rank == 0 else "that", dict))
        (Path(folder) / f"passed {rank}").touch()
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_real_processes_exchange_share_failures_and_notice_that_they_differ(tmp_path: Path) -> None:
    from torch.multiprocessing.spawn import spawn

    spawn(partial(in_group, folder=str(tmp_path)), nprocs=2)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert {path.name for path in tmp_path.glob("passed*")} == {"passed 0", "passed 1"}
