"""Opening a large checkpoint takes little more memory than its weights and a few of its largest maps."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "opening.py"


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
@pytest.mark.parametrize(("case", "ratio"), [("StyleGAN2", 4.0), ("BigGAN", 2.0)])
def test_the_peak_of_memory_is_a_small_multiple_of_the_file(case: str, ratio: float) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--only", case], capture_output=True, text=True, check=True, timeout=200
    )
    found = re.search(r"([\d.]+)×$", done.stdout.strip())
    assert found is not None
    assert float(found.group(1)) <= ratio
