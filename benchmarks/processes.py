"""CPU and wall time of one and of several processes for the same report of a DCGAN with random weights.

python benchmarks/processes.py [-n 1000] [-a dissection] [--processes 1 2] [--repeat 1]

Each process has one thread, so that the ratios are about processes and not about threads; the reports are compared, times
apart. On a machine that does other things the CPU time of the busiest process says what wall time would be.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

PHASES = {"opening": "opening the file", "analysis": "pass, analyzers and report", "both": "opening and analysis"}
"""CPU seconds that a process measures, by name, and what the table calls them."""
PHASES |= {"process": "with interpreter and imports", "wall": "wall time, opening and analysis"}


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


def one_process(checkpoint: Path, n: int, analyzers: list[str], target: Path) -> None:
    """Open and analyze as one of however many processes the environment names; write the report and what it took."""
    import gandissect
    from gandissect.passes.sharding import joined
    from gandissect.plugins import load_plugins

    torch.set_num_threads(1)
    registry = load_plugins()
    with joined() as shard:
        wall, began = time.perf_counter(), time.process_time()
        gan = gandissect.open(checkpoint, device="cpu", registry=registry)
        opened = time.process_time()
        report = gandissect.analyze(gan, analyzers, n=n, registry=registry, shard=shard)
        if shard.first:
            report.save(target)
        done = time.process_time()
        took = dict(zip(PHASES, (opened - began, done - opened, done - began, done), strict=False))
        took["wall"] = time.perf_counter() - wall
        target.with_suffix(f".{shard.rank}.took").write_text(json.dumps(took))


def measured(count: int, arguments: list[str], target: Path) -> list[dict[str, float]]:
    """What each of ``count`` processes took, in order of rank."""
    processes = []
    for rank in range(count):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
        place["GANDISSECT_RENDEZVOUS"] = target.with_suffix(".rendezvous").as_uri()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **place}
        command = [sys.executable, __file__, *arguments, "--target", str(target)]
        processes.append(subprocess.Popen(command, env=environment))
    codes = [process.wait() for process in processes]
    if any(codes):
        raise SystemExit("a process failed")
    return [json.loads(target.with_suffix(f".{rank}.took").read_text()) for rank in range(count)]


def table(took: Mapping[int, list[list[dict[str, float]]]]) -> str:
    """A row for each phase: seconds of the busiest process by number of processes (least of the repeats), ratios to the first."""
    first = next(iter(took))
    lines = ["| seconds, busiest process |" + "".join(f" {count} |" for count in took) + " ratio |"]
    lines.append("|---|" + "---|" * (len(took) + 1))
    for phase, name in PHASES.items():
        least = {count: min(max(rank[phase] for rank in ranks) for ranks in runs) for count, runs in took.items()}
        ratios = ", ".join(f"{least[first] / least[count]:.2f}" for count in took if count != first)
        lines.append(f"| {name} |" + "".join(f" {least[count]:.1f} |" for count in took) + f" {ratios} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("-a", "--analyzers", default="dissection")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--checkpoint", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--target", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.target:
        one_process(given.checkpoint, given.n, given.analyzers.split(","), given.target)
        return
    took: dict[int, list[list[dict[str, float]]]] = {count: [] for count in given.processes}
    reports = []
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "dcgan.pth"
        torch.save({f"main.{name}": value for name, value in dcgan().state_dict().items()}, checkpoint)
        arguments = ["-n", str(given.n), "-a", given.analyzers, "--checkpoint", str(checkpoint)]
        for turn in range(given.repeat):
            for count in given.processes:
                target = Path(folder) / f"{count}-{turn}.json"
                took[count].append(measured(count, arguments, target))
                reports.append(told(target))
    print(table(took))
    print("reports are equal" if all(report == reports[0] for report in reports) else "REPORTS DIFFER")


if __name__ == "__main__":
    main()
