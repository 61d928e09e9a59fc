"""CPU time of the demo's full report beside that of a report with dissection alone, and of each analyzer.

python benchmarks/demo.py [-n 1000]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import torch

import gandissect
from gandissect.demo import demo_checkpoint, demo_real_images
from gandissect.report import Report


def made(n: int, analyzers: Sequence[str] | None) -> tuple[Report, float]:
    """The report and its CPU seconds, opening included and rendering not."""
    began = time.process_time()
    report = gandissect.analyze(
        demo_checkpoint(), analyzers, n=n, concepts=("default", "demo"), data=demo_real_images()
    )
    return report, time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=1000)
    n = parser.parse_args().n
    torch.set_num_threads(1)
    time.perf_counter = time.process_time  # what the provenance measures with
    made(32, None)  # what is imported or compiled once
    _, alone = made(n, ["dissection"])
    report, full = made(n, None)
    print(f"dissection alone {alone:6.1f} s\nfull report      {full:6.1f} s   {full / alone:.2f}×")
    for name, seconds in sorted(report.provenance.seconds.items(), key=lambda item: -item[1]):
        print(f"  {name:<20} {seconds:6.1f} s")


if __name__ == "__main__":
    main()
