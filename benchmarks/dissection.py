"""Cost of a dissection against the bare forward pass of generator and segmenter over the same latents, as ratios of CPU time.

python benchmarks/dissection.py [-n 1000] [--only NAME]     # the table
python benchmarks/dissection.py --memory                    # peak memory at two sample sizes, each in a process of its own
python benchmarks/dissection.py --agreement                 # how cell and bilinear counting agree on a planted network
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from gandissect_plugins.dissection import Dissection, dissect, dissection_wants
from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.concepts import CallableSegmenter, Vocabulary
from gandissect.gan import Gan, LatentSpace, Opening
from gandissect.probing.building import build_gan
from gandissect.reducers import CrossSpec
from gandissect.session import BLOCK, Session
from gandissect.testing import PLANTED, tiny_gan
from gandissect.vocabulary import build_vocabulary

T = TypeVar("T")
WARM = 300  # samples from which on loops are compiled
LAYERS = [f"stages.{stage}.2" for stage in range(4)]
COLOURS = ("black", "blue", "green", "cyan", "red", "magenta", "yellow", "white")
BARE = "cell, fixed, no correlation"
MODES: dict[str, dict[str, str]] = {
    BARE: {},
    "cell, fixed": {},
    "cell, iqr": {"levels": "iqr"},
    "bilinear, fixed": {"resolution": "bilinear"},
    "bilinear, iqr": {"resolution": "bilinear", "levels": "iqr"},
}


class Dcgan(nn.Module):
    """DCGAN-64 with 512, 256, 128 and 64 units on grids of 4, 8, 16 and 32 cells."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (100, 512, 256, 128, 64)
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(sizes[stage], sizes[stage + 1], 4, *((1, 0) if stage == 0 else (2, 1)), bias=False),
                nn.BatchNorm2d(sizes[stage + 1], momentum=None),
                nn.ReLU(),
            )
            for stage in range(4)
        )
        self.rgb = nn.ConvTranspose2d(64, 3, 4, 2, 1, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        x = z[:, :, None, None]
        for stage in self.stages:
            x = stage(x)
        return torch.tanh(self.rgb(x))


def octants(images: Tensor) -> Tensor:
    """The sign pattern of RGB as eight masks: bool [N, 8, H, W]."""
    place = ((images > 0) * torch.tensor([4, 2, 1], dtype=torch.uint8)[:, None, None]).sum(1, dtype=torch.uint8)
    return place[:, None] == torch.arange(8, dtype=torch.uint8)[:, None, None]


def network() -> Gan:
    """Seeded random weights with BatchNorm statistics of 256 samples."""
    torch.manual_seed(0)
    net = Dcgan()
    for module in net.modules():
        if isinstance(module, nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.05)
    with torch.no_grad():
        for _ in range(4):
            net(torch.randn(64, 100))
    latent = LatentSpace("z", (100,))
    return build_gan(Networks(net.eval(), latent=latent), name="dcgan", opening=Opening("benchmark", "random weights"))


def session(gan: Gan, n: int) -> Session:
    return Session(gan, n=n, vocabulary=Vocabulary([CallableSegmenter(octants, COLOURS)]))


def seconds(prepare: Callable[[], T], work: Callable[[T], object], repeats: int) -> float:
    """CPU time of ``work``, the median of several runs; ``prepare`` makes what it needs and is not counted."""
    took = []
    for _ in range(repeats):
        ready = prepare()
        began = time.process_time()
        work(ready)
        took.append(time.process_time() - began)
    return statistics.median(took)


def table(n: int, only: str | None) -> None:
    gan = network()
    z = session(gan, n).latents()

    def bare(_ready: None) -> None:
        with torch.no_grad():
            for start in range(0, n, BLOCK):
                octants(gan.generator(z[start : start + BLOCK]))

    for settings in MODES.values():
        measured(settings, session(gan, WARM))  # what is imported, built or compiled once
    base = seconds(lambda: None, bare, 3)
    print(f"960 units, 8 concepts, n = {n}, 100 shuffles, one thread\n  bare forward and segmenter    {base:8.2f} s")
    for name, settings in MODES.items():
        if only in (None, name):
            took = seconds(partial(prepared, gan, n, name), partial(measured, settings), 3)
            print(f"  {name:<29} {took:8.2f} s   {took / base:5.2f}×", flush=True)


def prepared(gan: Gan, n: int, mode: str) -> Session:
    """A new session; one that knows the moments for correlations already where these are not to be counted."""
    fresh = session(gan, n)
    if mode == BARE:
        fresh.prepare(want for want in dissection_wants(gan, n, LAYERS) if isinstance(want.reduce, CrossSpec))
    return fresh


def measured(settings: dict[str, str], ready: Session) -> Dissection:
    return dissect(ready, LAYERS, draws=100, **settings)  # type: ignore[arg-type]


def memory(n: int, mode: str) -> None:
    """One dissection in this process, and the most memory that it held."""
    measured(MODES[mode], session(network(), n))
    print(f"  {mode:<18} n = {n:<6} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:5.2f} GB", flush=True)


def agreement(n: int) -> None:
    """Labels and IoU of the planted network by both ways of counting."""
    found: list[Dissection] = []
    for resolution in ("cell", "bilinear"):
        planted = Session(tiny_gan("planted"), n=n, vocabulary=build_vocabulary(["colours"]))
        found.append(dissect(planted, [PLANTED.layer], resolution=resolution))
        rows = {row.unit: f"{row.concept} {row.iou:.3f}" for row in found[-1].found()}
        print(f"  {resolution:<9} {dict(sorted(rows.items()))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--only", choices=MODES)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--here", action="store_true", help="with --memory: in this process, for -n and --only")
    parser.add_argument("--agreement", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.agreement:
        agreement(given.n)
    elif given.memory and given.here:
        memory(given.n, given.only or "cell, fixed")
    elif given.memory:
        for mode in [given.only] if given.only else ["cell, fixed", "cell, iqr"]:
            for n in (1000, 10000):
                command = [sys.executable, __file__, "--memory", "--here", "-n", str(n), "--only", mode]
                subprocess.run(command, check=True)
    else:
        table(given.n, given.only)


if __name__ == "__main__":
    main()
