"""The one checkpoint in a file, folder or archive, and the settings beside it.

with located(Path("runs.zip::epoch_9/netG.pth")) as found:
    found.file                          # a private copy of that member, gone after the block
    found.config                        # {"latent_dim": 64} from epoch_9/config.json, or None
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import cast

from gandissect.errors import NotOpened
from gandissect.files.archives import (
    DAMAGED,
    check_sizes,
    copy_range,
    is_tar,
    member_bytes,
    open_zip,
    tar_files,
    unpack_gzip,
    unpack_member,
)  # fmt: skip

SEPARATOR = "::"  # between an archive and the member that is meant
MAX_CONFIG = 2**20
_MAX_SHARDS = 1_000
_LAYERS = 3
_ENDINGS = (
    ".pt",
    ".pth",
    ".ckpt",
    ".pkl",
    ".pickle",
    ".pt2",
    ".safetensors",
    ".bin",
    ".model",
    ".tar",
    ".pth.gz",
    ".pt.gz",
    ".steg",
)
_TRAINING = re.compile(r"(optimizer|scheduler|training_args|random_states|rng_state|scaler)", re.I)
_PUBLISHED = (
    "diffusion_pytorch_model.safetensors", "model.safetensors", "diffusion_pytorch_model.safetensors.index.json",
    "model.safetensors.index.json", "diffusion_pytorch_model.bin", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
"""Names that Hugging Face libraries save under, the one to take first."""


@dataclass(frozen=True)
class Located:
    """Where a checkpoint is.

    ``path`` is what to call it, with ``::member`` where it is in an archive; ``file`` holds its bytes, a temporary copy where it
    was wrapped; ``outer`` is the file on disk; ``shards`` are the parts of a checkpoint that is split over several files.
    """

    path: Path
    file: Path
    outer: Path
    shards: tuple[Path, ...] = ()

    @property
    def wrapped(self) -> bool:
        """Whether ``file`` is a temporary copy."""
        return self.file != self.outer

    @cached_property
    def config(self) -> dict[str, object] | None:
        """The JSON table beside the checkpoint, under its own name or as config.json; None where there is none."""
        stem = self.file.name.partition(".")[0]
        folders = [self.file.parent] if not self.wrapped else [self.file.parent, self.outer.parent]
        for folder in folders:
            for name in (f"{stem}.config.json", "config.json", ".config.json"):
                table = _table(folder / name)
                if table is not None:
                    return table
        return None


@contextmanager
def located(path: str | Path) -> Generator[Located]:
    """The checkpoint that ``path`` means: a file, a folder or archive with one checkpoint in it, or ``archive::member``.

    Raises:
        NotOpened: missing, or none or several to choose from; the sentence lists them. An error of the block that names the
            temporary copy names ``path`` instead.
    """
    outer, member = _split(Path(path).expanduser())
    if outer.is_dir():
        outer = outer / _choose(_names(outer), member, str(outer), "{}/{}")
        member = ""
    if outer.name.endswith(".index.json") and outer.is_file():
        yield Located(outer, outer, outer, _shards(outer))
        return
    if not outer.is_file() or not _is_wrapper(outer):
        if member:
            raise NotOpened(f"{outer} is no archive, so there is no {member!r} in it; check the path")
        yield Located(outer, outer, outer)
        return
    with tempfile.TemporaryDirectory(prefix="gandissect-") as folder:
        yield from _unwrapped(outer, member, Path(folder))


def _unwrapped(outer: Path, member: str, folder: Path) -> Generator[Located]:
    file, name = outer, ""
    try:
        for layer in range(_LAYERS):
            if not _is_wrapper(file):
                break
            inside = folder / str(layer)
            inside.mkdir()
            file, taken = _unpack(file, member if not name else "", inside)
            name = name or taken
        yield Located(Path(f"{outer}{SEPARATOR}{name}") if name else outer, file, outer)
    except NotOpened as error:
        shown = f"{outer}{SEPARATOR}{name}" if name else str(outer)
        raise type(error)(str(error).replace(str(file), shown)) from error
    except OSError as error:
        raise NotOpened(f"{outer} cannot be unpacked ({error}); unpack it and pass the checkpoint inside") from error


def _split(path: Path) -> tuple[Path, str]:
    text = str(path)
    if SEPARATOR not in text or path.exists():
        return path, ""
    outer, _, member = text.partition(SEPARATOR)
    return Path(outer), member


def _is_wrapper(file: Path) -> bool:
    """Whether it is gzip, tar, or a zip that torch did not write."""
    with file.open("rb") as opened:
        head = opened.read(512)
    if head[:2] == b"\x1f\x8b" or is_tar(head):
        return True
    if head[:4] != b"PK\x03\x04":
        return False
    with open_zip(file) as archive:
        check_sizes(file, archive)
        names = archive.namelist()
    inner = {name.partition("/")[2] for name in names} | set(names)
    return not inner & {"data.pkl", "archive_format"} and not all(name.endswith(".npy") for name in names)


def _unpack(file: Path, member: str, folder: Path) -> tuple[Path, str]:
    """(the checkpoint as a file in ``folder``, its name in the archive)."""
    target = folder / "checkpoint"
    with file.open("rb") as opened:
        head = opened.read(512)
    if head[:2] == b"\x1f\x8b":
        unpack_gzip(file, target)
        return target, ""
    if is_tar(head):
        places = tar_files(file)
        if {"pickle", "storages", "tensors"} <= set(places):
            raise NotOpened(
                f"{file} was written by torch before 0.1.10; load it there and save it again with a newer torch"
            )
        name = _choose(places, member, str(file), f"{{}}{SEPARATOR}{{}}")
        copy_range(file, *places[name], target)
        for config in _configs(name, places):
            if places[config][1] <= MAX_CONFIG:
                copy_range(file, *places[config], folder / "config.json")
        return target, name
    with open_zip(file) as archive:
        members = {info.filename: info for info in archive.infolist() if not info.is_dir()}
        name = _choose(members, member, str(file), f"{{}}{SEPARATOR}{{}}")
        unpack_member(file, archive, name, target)
        for config in _configs(name, members):
            if members[config].file_size <= MAX_CONFIG:
                (folder / "config.json").write_bytes(member_bytes(archive, members[config], MAX_CONFIG))
    return target, name


def _configs(name: str, names: Iterable[str]) -> list[str]:
    """The settings of the checkpoint ``name`` among the other names of its archive."""
    where = PurePosixPath(name)
    stem = where.name.partition(".")[0]
    beside = [str(where.parent / other) for other in (f"{stem}.config.json", "config.json", ".config.json")]
    return [other for other in beside if other in set(names)][:1]


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_file())


def _choose(names: Iterable[str], wanted: str, where: str, form: str) -> str:
    """The name that is meant, or the only one that can be.

    Args:
        form: how a person writes the choice, with {} for the archive and {} for the name.
    """
    plain = [name for name in names if not PurePosixPath(name).name.startswith(".") and "__MACOSX" not in name]
    if wanted:
        if wanted in plain:
            return wanted
        raise NotOpened(f"{where} holds no {wanted!r}; it holds {_listed(plain) or 'no file'}")
    by_name = {PurePosixPath(name).name: name for name in plain}
    published = [by_name[name] for name in _PUBLISHED if name in by_name]
    found = [n for n in plain if n.lower().endswith(_ENDINGS) and not _TRAINING.search(PurePosixPath(n).name)]
    if published:
        return published[0]
    if len(found) == 1:
        return found[0]
    if found:
        example = form.format(where, found[0])
        raise NotOpened(f"{where} holds {len(found)} checkpoints ({_listed(found)}); say which, such as {example}")
    raise NotOpened(
        f"{where} holds no checkpoint; pass a checkpoint file{f' (it holds {_listed(plain)})' if plain else ''}"
    )


def _listed(names: list[str]) -> str:
    shown = ", ".join(name if len(name) <= 100 else name[:100] + "…" for name in names[:8])
    return shown + (" …" if len(names) > 8 else "")


def _shards(index: Path) -> tuple[Path, ...]:
    """The files that a ``*.index.json`` of Hugging Face lists, all of them beside it."""
    table = _table(index, 2**24)
    parts = table.get("weight_map") if table else None
    if not isinstance(parts, Mapping) or not parts or not all(isinstance(name, str) for name in parts.values()):
        raise NotOpened(f"{index} is no index of a checkpoint in parts; pass the weights file")
    names = list(dict.fromkeys(cast("Mapping[str, str]", parts).values()))
    if len(names) > _MAX_SHARDS or any(
        name != PurePosixPath(name).name or "\\" in name or name in ("", "..") for name in names
    ):
        raise NotOpened(f"{index} names files that are not beside it; a checkpoint's parts are in one folder")
    if missing := [name for name in names if not (index.parent / name).is_file()]:
        raise NotOpened(f"{index} lists {missing[0][:100]!r}, which is not beside it; download all {len(names)} parts")
    return tuple(index.parent / name for name in names)


def _table(path: Path, limit: int = MAX_CONFIG) -> dict[str, object] | None:
    """A JSON object, None where there is none of a sane size."""
    try:
        if not path.is_file() or path.stat().st_size > limit:
            return None
        table = json.loads(path.read_bytes())
    except DAMAGED:
        return None
    return table if isinstance(table, dict) else None
