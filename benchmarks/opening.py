"""What opening a bare state dict takes: seconds, CPU seconds, and peak memory beyond the imported libraries over the file's size.

python benchmarks/opening.py [--only REGEX]
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

MIB = 2**20


def dcgan() -> dict[str, object]:
    """A DCGAN for 64 px (Radford et al. 2016) with the statistics of its own batches."""
    widths = (100, 512, 256, 128, 64)
    layers: list[nn.Module] = []
    for index, (into, out) in enumerate(pairwise(widths)):
        layers += [nn.ConvTranspose2d(into, out, 4, 2 if index else 1, 1 if index else 0, bias=False)]
        layers += [nn.BatchNorm2d(out), nn.ReLU()]
    net = nn.ModuleDict({"main": nn.Sequential(*layers, nn.ConvTranspose2d(64, 3, 4, 2, 1, bias=False), nn.Tanh())})
    for part in net.modules():
        if isinstance(part, nn.ConvTranspose2d):
            nn.init.normal_(part.weight, std=0.02)
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None  # the plain average over batches
    with torch.no_grad():
        for _ in range(20):
            net["main"](torch.randn(64, 100, 1, 1))
    return dict(net.state_dict())


def stylegan2() -> dict[str, object]:
    """Config F of StyleGAN2 for 512 px (Karras et al. 2020) as rosinality's code saves it, random weights."""
    from gandissect_adapters.families.style.rosinality_stylegan2 import Generator

    widths = [512, 512, 512, 512, 512, 256, 128, 64]
    net = Generator(widths, 512, 8, colours=3, rate=0.01, taps=4)
    line = torch.tensor([1.0, 3.0, 3.0, 1.0])
    weights: dict[str, Tensor] = {name: torch.randn(tensor.shape) for name, tensor in net.state_dict().items()}
    for name in weights:
        if name.endswith("kernel"):
            weights[name] = line.outer(line) / 16.0
    return {"g_ema": weights, "latent_avg": torch.zeros(512)}


def biggan() -> dict[str, object]:
    """BigGAN for 128 px and 1000 classes (Brock et al. 2019, table 4) as BigGAN-PyTorch saves it, random weights."""
    from gandissect_adapters.families.residual.biggan_nets import BigGan, BlockPlan, Plan
    from gandissect_adapters.families.residual.biggan_ops import AttentionPlan
    from gandissect_adapters.families.residual.ops import THETA_PHI

    widths = (1536, 1536, 768, 384, 192, 96)
    blocks = [
        BlockPlan((i, 0), into, out, out, True, True, AttentionPlan(out, out // 8, (), THETA_PHI) if i == 3 else None)
        for i, (into, out) in enumerate(pairwise(widths))
    ]
    plan = Plan(False, blocks, 120, 20, 4, 1000, 128, 148, "chunks", 3, "running", 1e-5)
    net = BigGan(plan)
    return dict(net.state_dict())


CASES: Mapping[str, Callable[[], dict[str, object]]] = {
    "DCGAN, 64 px": dcgan,
    "StyleGAN2, 512 px": stylegan2,
    "BigGAN, 128 px": biggan,
}


def peak() -> int:
    """Bytes of memory that this process held at most; ru_maxrss would start at what the parent process holds."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None, "Linux says it"
    return int(found.group(1)) * 1024


def measured(path: Path) -> dict[str, float]:
    """One opening in this process, which has done nothing else."""
    import gandissect
    from gandissect.plugins import load_plugins

    torch.set_num_threads(1)
    registry = load_plugins()
    registry.adapters()
    torch.ones(8) @ torch.ones(8, 8)  # the matrix library's own start
    before, wall, cpu = peak(), time.perf_counter(), time.process_time()
    gandissect.open(path, device="cpu", registry=registry)
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "peak": peak() - before}


def main() -> None:
    """Print the table; with a file, measure it and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="regular expression of cases")
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.file is not None:
        print(json.dumps(measured(given.file)))
        return
    torch.manual_seed(0)
    print(f"{'checkpoint':<20} {'file':>9} {'wall':>8} {'CPU':>8} {'peak / file':>12}")
    with tempfile.TemporaryDirectory() as folder:
        for name, make in CASES.items():
            if not re.search(given.only, name):
                continue
            path = Path(folder) / "netG.pt"
            torch.save(make(), path)
            size = path.stat().st_size
            done = subprocess.run(
                [sys.executable, __file__, "--file", str(path)], stdout=subprocess.PIPE, text=True, check=True
            )
            found = json.loads(done.stdout)
            print(
                f"{name:<20} {size / MIB:5.0f} MiB {found['wall']:6.2f} s {found['cpu']:6.2f} s {found['peak'] / size:11.1f}×"
            )


if __name__ == "__main__":
    main()
