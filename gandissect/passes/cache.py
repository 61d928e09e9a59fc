"""Finished parts of a pass on disk, so that a run that was killed goes on where it was.

cache = Cache(Path("report.cache"), resume=True)
analyze(gan, cache=cache)
cache.remove()                                           # when the report is written

A part counts only for the run that would make it again bit for bit: same weights, samples, wants, concepts, code and software. Every file
appears under its name when it is complete; what is of another run, damaged or half-written is ignored.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gandissect.__about__ import __version__
from gandissect.concepts import Segmenter, Vocabulary
from gandissect.passes.gathering import CHUNK, Partial, Store, Want
from gandissect.passes.running import BLOCK, Reading, Runner
from gandissect.passes.sharding import plain

SECONDS = 10.0
"""Between two files of one process, where writing one takes less than a twentieth of that."""
_SUFFIX = ".safetensors"


class Cache:
    """A folder of finished parts.

    Args:
        folder: made when there is something to keep.
        resume: use what an earlier run left there.
        seconds: least time between two files of one process, which is longer where writing takes long; 0 for a file per chunk.
        say: told what was found, for the person at the terminal.
    """

    def __init__(
        self,
        folder: Path,
        *,
        resume: bool = False,
        seconds: float = SECONDS,
        say: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.folder = folder
        self.resume = resume
        self.seconds = seconds
        self.say = say
        self.writes = True
        self._own: list[Path] | None = None

    @property
    def files(self) -> list[Path]:
        """The parts that are there, whosever they are."""
        return sorted(self.folder.glob(f"part-*{_SUFFIX}"))

    def store(self, identity: Callable[[], str]) -> Store:
        """Where one pass keeps its chunks; ``identity`` says which run this is, "" for one that cannot be told from others."""
        return _Files(self, identity)

    def usable(self, identity: Callable[[], str]) -> list[Path]:
        """The complete files of the run ``identity`` that were there before this run, if it is to resume."""
        if self._own is None:
            files = self.files if self.resume else []
            self._own = [path for path in files if _identity_in(path) == identity()]
            others = len(files) - len(self._own)
            if others:
                self.say(f"{others} of {len(files)} parts in {self.folder} are damaged or of another run; not used")
        return self._own

    def remove(self) -> None:
        """Delete the parts, and the folder where nothing else is in it."""
        for path in [*self.files, *self.folder.glob(f"part-*{_SUFFIX}.writing")]:
            path.unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()


class _Files(Store):
    """The parts of one pass."""

    def __init__(self, cache: Cache, identity: Callable[[], str]) -> None:
        self._cache, self._identity = cache, identity
        self._next = time.monotonic() + cache.seconds

    def known(self, want: Want) -> Partial:
        found = Partial(want)
        key = want_key(want)
        for path in self._cache.usable(self._identity) if key else []:
            try:
                with safe_open(path, "pt") as file:
                    mine = {
                        name.partition(":")[2]: file.get_tensor(name)
                        for name in file.keys()  # noqa: SIM118  # no mapping
                        if name.startswith(f"{key}:")
                    }
            except (OSError, SafetensorError):
                continue
            part = Partial.of(want, mine) if mine else Partial(want)
            if not part.chunks & found.chunks:
                found.absorb(part)
        return found

    def due(self) -> bool:
        return self._cache.writes and time.monotonic() >= self._next

    def keep(self, partials: Sequence[Partial]) -> None:
        began = time.monotonic()
        keyed = [(key, part) for part in partials if part.chunks and (key := want_key(part.want))]
        identity = self._identity() if keyed else ""
        if identity:
            state = {f"{key}:{name}": value for key, part in keyed for name, value in part.state().items()}
            try:
                _write_whole(self._cache.folder / f"part-{uuid.uuid4().hex}{_SUFFIX}", state, identity)
            except (OSError, SafetensorError) as error:  # a full disk must not end a run that needs no disk
                self._cache.say(f"cannot keep parts in {self._cache.folder} ({error}); going on without")
                self._cache.writes = False
        ended = time.monotonic()
        self._next = ended + (max(self._cache.seconds, 20 * (ended - began)) if self._cache.seconds else 0.0)


def _write_whole(path: Path, state: Mapping[str, Tensor], identity: str) -> None:
    """Write a part so that it is under its name only when all of it is there."""
    unfinished = path.with_name(f"{path.name}.writing")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(plain(state), unfinished, metadata={"run": identity})
    os.replace(unfinished, path)


def _identity_in(path: Path) -> str:
    """The run that a part is of; nothing where the file is damaged."""
    try:
        with safe_open(path, "pt") as file:
            return str((file.metadata() or {}).get("run", ""))
    except (OSError, SafetensorError):
        return ""


def want_key(want: Want) -> str:
    """A want by value, the same in every process; "" where it has none (a function among its values, an unknown source)."""
    text = repr(want)
    codes = [code_of(type(part)) for part in (want.reduce, *want.streams)]
    if " at 0x" in text or "..." in text or not all(codes):
        return ""
    return hashlib.sha256(json.dumps([text, codes]).encode()).hexdigest()[:32]


def code_of(thing: type | Callable[..., object]) -> str:
    """The sha256 of the file in which a class or function is written; "" where there is none."""
    try:
        path = inspect.getsourcefile(thing)
        return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""
    except (OSError, TypeError):
        return ""


def fingerprint(runner: Runner, vocabulary: Vocabulary, batch_size: int) -> str:
    """What makes a run the same run: software, weights, seed, and the bits that come out for the first block of samples.

    Returns:
        a sha256; "" where the concepts come from code without a file.
    """
    codes = [_segmenter_code(segmenter) for segmenter in vocabulary.segmenters]
    if not all(codes):
        return ""
    digest = hashlib.sha256()
    names = [concept.name for concept in vocabulary.concepts]
    place = torch.device(runner.gan.generator.device).type
    real = (runner.real.name, len(runner.real)) if runner.real else None
    facts = [__version__, torch.__version__, place, runner.seed, batch_size, BLOCK, CHUNK, names, codes, real]
    digest.update(json.dumps(facts).encode())
    for network in filter(None, (runner.gan.generator, runner.gan.discriminator)):
        for name, value in network.module.state_dict().items():
            if isinstance(value, Tensor):
                _take(digest, name, value)
    readings = [Reading(scores=runner.gan.discriminator is not None)] + [Reading(real=True)] * bool(real)
    for reading in readings:
        stop = min(BLOCK, len(runner.real)) if reading.real and runner.real else BLOCK
        for batch in runner.samples(0, stop, reading, vocabulary):
            for value in (batch.latents, batch.images, batch.scores, batch.segment()):
                if value is not None:
                    _take(digest, "", value)
    return digest.hexdigest()


def _take(digest: hashlib._Hash, name: str, value: Tensor) -> None:
    digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
    digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)


def _segmenter_code(segmenter: Segmenter) -> str:
    """The code of a segmenter, or of the function that it calls."""
    function = getattr(segmenter, "_function", None)
    return code_of(function if callable(function) else type(segmenter))
