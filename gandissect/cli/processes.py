"""One command in several processes of this machine, which share its samples.

in_processes(2, ["analyze", "ckpt.pt"])          # the exit code of the first
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gandissect.errors import EXIT_INTERRUPTED
from gandissect.passes.sharding import RENDEZVOUS, ProcessesApart

if TYPE_CHECKING:
    from torch.multiprocessing.spawn import ProcessContext

GRACE = 30.0
"""Seconds that the others have for their last words when one process has ended, and for a report when interrupted."""


def in_processes(count: int, arguments: Sequence[str]) -> int:
    """Run ``gandissect ARGUMENTS`` as ``count`` processes with a part of the threads each; the exit code.

    Raises:
        ProcessesApart: one of them was killed.
    """
    import torch
    from torch.multiprocessing.spawn import ProcessExitedException, spawn

    threads = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(max(1, torch.get_num_threads() // count))
    try:
        with tempfile.TemporaryDirectory() as folder:
            place = (Path(folder) / "rendezvous").as_uri()
            context: ProcessContext = spawn(  # type: ignore[no-untyped-call]  # torch leaves it untyped
                _one, (count, place, tuple(arguments)), nprocs=count, join=False
            )
            try:
                while not context.join(grace_period=GRACE):
                    pass
            except KeyboardInterrupt:
                return _interrupted(context)
    except ProcessExitedException as error:
        if error.signal_name:
            raise ProcessesApart(
                f"process {error.error_index} was ended by {error.signal_name}; --resume goes on from what was kept"
            ) from error
        return context.processes[0].exitcode or error.exit_code
    finally:
        if threads is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = threads
    return 0


def _interrupted(context: ProcessContext) -> int:
    """Pass Ctrl-C on and leave the first process the time to write what is done."""
    for process in context.processes:
        process.terminate()
    for process in context.processes:
        process.join(GRACE)
        process.kill()
    return EXIT_INTERRUPTED


def _one(rank: int, count: int, rendezvous: str, arguments: Sequence[str]) -> None:
    """One of the processes."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        RENDEZVOUS: rendezvous,
    }
    from gandissect.cli.main import main

    main(arguments)
