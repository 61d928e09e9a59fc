"""CPU time of the demo's full report beside that of its report with dissection alone, as a user asks for them, and of each analyzer.

python benchmarks/demo.py [-n 1000]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path


def made(report: Path, *arguments: str) -> float:
    """CPU seconds of ``gandissect demo`` on one thread in a process of its own: imports, opening and writing included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "gandissect", "demo", "-q", "-o", str(report), *arguments]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=1000)
    n = str(parser.parse_args().n)
    with tempfile.TemporaryDirectory() as folder:
        made(Path(folder) / "warm.json", "-n", "32")  # loops that are compiled once and kept on disk
        alone = made(Path(folder) / "dissection.html", "-n", n, "-a", "dissection")
        full = made(Path(folder) / "full.html", "-n", n)
        seconds = json.loads((Path(folder) / "full.json").read_text("utf-8"))["provenance"]["seconds"]
    print(f"dissection alone {alone:6.1f} s\nfull report      {full:6.1f} s   {full / alone:.2f}×")
    for name, took in sorted(seconds.items(), key=lambda item: -item[1]):
        print(f"  {name:<20} {took:6.1f} s")


if __name__ == "__main__":
    main()
