"""Cost of the shared pass against the bare forward pass over the same latents, as ratios within one run.

python benchmarks/one_pass.py [CHECKPOINT] [-n 1000]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch

import gandissect
from gandissect.demo import demo_checkpoint
from gandissect.plugins import load_plugins
from gandissect.session import BLOCK, Session
from gandissect.vocabulary import build_vocabulary


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """CPU time of the fastest of several runs."""
    best = float("inf")
    for _ in range(repeats):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", nargs="?", type=Path, default=None)
    parser.add_argument("-n", type=int, default=1000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    gan = gandissect.open(given.checkpoint or demo_checkpoint(), device="cpu")
    registry = load_plugins()
    z = Session(gan, n=given.n).latents()

    def forward(size: int) -> None:
        with torch.no_grad():
            for start in range(0, given.n, size):
                gan.generator(z[start : start + size])

    def masks() -> None:
        session = Session(gan, n=given.n, vocabulary=build_vocabulary(("default",), registry))
        session.vocabulary.segment(torch.zeros(1, *gan.generator.image_shape), [0])
        session.masks()

    def everything() -> None:
        session = Session(gan, n=given.n, vocabulary=build_vocabulary(("default",), registry))
        wants = []
        for cls in registry.analyzers().values():
            analyzer = cls()
            if not analyzer.needs.missing(session):
                wants += list(analyzer.wants(session))
        session.prepare(wants)

    base = seconds(lambda: forward(64))
    rows = {
        "bare forward, batches of 64": base,
        f"bare forward, blocks of {BLOCK}": seconds(lambda: forward(BLOCK)),
        "forward and default vocabulary": seconds(masks, 1),
        "all that the built-in analyzers want, fused": seconds(everything, 1),
    }
    print(f"{gan.name}, n = {given.n}, one thread")
    for name, value in rows.items():
        print(f"  {name:<48} {value:7.2f} s   {value / base:5.2f}×")


if __name__ == "__main__":
    main()
