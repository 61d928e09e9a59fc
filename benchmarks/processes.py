"""Wall-clock time of one and of several processes for the same report of a DCGAN with random weights.

python benchmarks/processes.py [-n 1000] [-a dissection] [--processes 1 2]

Each process has one thread, so that the ratio is about processes and not about threads; the reports are compared, times apart.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn


def dcgan(width: int = 64) -> nn.Sequential:
    """Radford et al. 2016, Unsupervised Representation Learning with DCGANs, fig. 1, for 64×64 images."""
    widths = [8 * width, 4 * width, 2 * width, width]
    layers: list[nn.Module] = []
    for place, (before, after) in enumerate(zip([100, *widths[:-1]], widths, strict=True)):
        step = (1, 0) if place == 0 else (2, 1)
        layers += [nn.ConvTranspose2d(before, after, 4, *step, bias=False), nn.BatchNorm2d(after), nn.ReLU(True)]
    torch.manual_seed(0)
    net = nn.Sequential(*layers, nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False), nn.Tanh())
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
    with torch.no_grad():
        net(torch.randn(64, 100, 1, 1))  # norms that fit the weights, so that images vary
    return net.eval()


def told(path: Path) -> dict[str, object]:
    """A report without times and the command."""
    report: dict[str, object] = json.loads(path.read_text())
    provenance, sections = report["provenance"], report["sections"]
    assert isinstance(provenance, dict) and isinstance(sections, list)
    for key in ("seconds", "created", "command"):
        provenance.pop(key)
    for section in sections:
        section.pop("seconds", None)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("-a", "--analyzers", default="dissection")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    given = parser.parse_args()
    rows: dict[int, tuple[float, float]] = {}
    reports = []
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "dcgan.pth"
        torch.save({f"main.{name}": value for name, value in dcgan().state_dict().items()}, checkpoint)
        for count in given.processes:
            target = Path(folder) / f"{count}.json"
            command = [sys.executable, "-m", "gandissect", "analyze", str(checkpoint), "-n", str(given.n), "-q"]
            command += ["-a", given.analyzers, "--device", "cpu", "--processes", str(count), "-o", str(target)]
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            began = time.perf_counter()
            subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
            rows[count] = wall, after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
            reports.append(told(target))
            seconds = json.loads(target.read_text())["provenance"]["seconds"]
            print(
                f"{count} process(es): {rows[count][0]:7.1f} s wall, {rows[count][1]:7.1f} s of CPU; {seconds}",
                flush=True,
            )
    first = rows[given.processes[0]][0]
    for count in given.processes[1:]:
        print(f"{given.processes[0]} → {count}: {first / rows[count][0]:.2f}× as fast")
    print("reports are equal" if all(report == reports[0] for report in reports) else "REPORTS DIFFER")


if __name__ == "__main__":
    main()
