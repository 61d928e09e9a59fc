"""Zip, tar and gzip files read with limits; nothing is ever written to a path that an archive names.

with open_zip(path) as archive:
    content = member_bytes(archive, "run/config.json", limit=2**20)
"""

from __future__ import annotations

import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from gandissect.errors import NotOpened

MAX_INFLATION = 20  # bytes unpacked over bytes on disk
SLACK = 2**24  # bytes that any archive may unpack to
_DIRECTORY = 2**24  # bytes of a zip's directory: some 160,000 tensors
_ENTRIES = 10_000  # of a tar
_CHUNK = 2**20
DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, OSError, EOFError, ValueError, KeyError,
    IndexError, TypeError, AttributeError, NotImplementedError, RuntimeError, RecursionError, MemoryError, OverflowError,
)  # fmt: skip


class _Directory(io.FileIO):
    """A file that refuses to be read by the gigabyte: zipfile takes the size of a zip's directory from the zip."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _DIRECTORY:
            raise zipfile.BadZipFile(f"its directory claims {size:,} bytes")
        return super().read(size) or b""


@contextmanager
def open_zip(path: Path) -> Generator[zipfile.ZipFile]:
    """The zip at ``path``.

    Raises:
        NotOpened: it cannot be read, or anything inside the ``with`` block fails on it.
    """
    try:
        with _Directory(path) as file, zipfile.ZipFile(file) as archive:
            yield archive
    except NotOpened:
        raise
    except DAMAGED as error:
        raise NotOpened(
            f"{path} is damaged or truncated: it starts like a zip archive but cannot be read ({error}); copy or download it again"
        ) from error


def check_sizes(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse a zip that claims to unpack to absurdly much, or that needs a password."""
    members = archive.infolist()
    if any(member.flag_bits & 1 for member in members):
        raise NotOpened(f"{path} is encrypted; unpack it with its password and pass the checkpoint inside")
    if sum(member.file_size for member in members) > MAX_INFLATION * path.stat().st_size + SLACK:
        raise NotOpened(f"{path} claims to unpack to over {MAX_INFLATION} times its size; no checkpoint does")


def member_bytes(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> bytes:
    """One member's content, at most ``limit`` bytes of it.

    Raises:
        ValueError: it is longer.
    """
    if member.file_size > limit:
        raise ValueError(f"{len(member.filename)} characters of name hold {member.file_size:,} bytes")
    with archive.open(member) as source:
        content = source.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"a member is longer than its {limit:,} bytes")
    return content


def stored_at(file: BinaryIO, member: zipfile.ZipInfo, size: int) -> int | None:
    """Where a member's bytes begin in a zip of ``size`` bytes; None where they are compressed or not all there."""
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size or member.flag_bits & 1:
        return None
    file.seek(member.header_offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        return None
    start = (
        member.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    )
    return start if start + member.file_size <= size else None


def unpack_gzip(source: Path, target: Path) -> None:
    """Write what the gzip file at ``source`` holds to ``target``.

    Raises:
        NotOpened: damaged, or more than ``MAX_INFLATION`` times its size.
    """
    left = MAX_INFLATION * source.stat().st_size + SLACK
    try:
        with source.open("rb") as packed, target.open("wb") as plain:
            stream = zlib.decompressobj(31)
            while chunk := stream.unconsumed_tail or packed.read(_CHUNK):
                content = stream.decompress(chunk, _CHUNK)
                left -= len(content)
                if left < 0:
                    raise NotOpened(f"{source} unpacks to over {MAX_INFLATION} times its size; no checkpoint does")
                plain.write(content)
                if stream.eof:
                    break
            if stream.unused_data.strip(b"\0") or packed.read(1).strip(b"\0"):
                raise NotOpened(
                    f"{source} holds several gzip streams; unpack it with gunzip and pass the checkpoint inside"
                )
            if not stream.eof:
                raise EOFError("its end is missing")
    except NotOpened:
        raise
    except DAMAGED as error:
        raise NotOpened(f"{source} is a damaged gzip file ({error}); copy or download it again") from error


def unpack_member(source: Path, archive: zipfile.ZipFile, name: str, target: Path) -> None:
    """Write one member of a zip to ``target``."""
    left = MAX_INFLATION * source.stat().st_size + SLACK
    with archive.open(name) as packed, target.open("wb") as plain:
        while chunk := packed.read(_CHUNK):
            left -= len(chunk)
            if left < 0:
                raise NotOpened(f"{source} unpacks to over {MAX_INFLATION} times its size; no checkpoint does")
            plain.write(chunk)


def is_tar(head: bytes) -> bool:
    """Whether 512 bytes are the header of a tar entry: its checksum is the sum of the others (POSIX.1-1988 ustar, and v7)."""
    if len(head) < 512 or not head[0]:
        return False
    try:
        told = int(head[148:156].strip(b"\0 ") or b"-1", 8)
    except ValueError:
        return False
    return told == sum(head[:148]) + 8 * 32 + sum(head[156:512])


def tar_files(path: Path) -> dict[str, tuple[int, int]]:
    """Name -> (start, size) of the plain files in an uncompressed tar; links, devices and sparse files are left out.

    Raises:
        NotOpened: damaged, or of absurdly many entries.
    """
    found: dict[str, tuple[int, int]] = {}
    size = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as archive:
            for count, entry in enumerate(archive):
                if count >= _ENTRIES:
                    raise NotOpened(
                        f"{path} is a tar of over {_ENTRIES:,} files; unpack it and pass the checkpoint inside"
                    )
                plain = entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and entry.sparse is None
                if plain and 0 <= entry.size <= size - entry.offset_data:
                    found[entry.name] = (entry.offset_data, entry.size)
    except NotOpened:
        raise
    except DAMAGED as error:
        raise NotOpened(f"{path} is a damaged tar archive ({error}); copy or download it again") from error
    return found


def copy_range(source: Path, start: int, size: int, target: Path) -> None:
    """Write ``size`` bytes of ``source`` to ``target``."""
    with source.open("rb") as whole, target.open("wb") as part:
        whole.seek(start)
        while size > 0 and (chunk := whole.read(min(size, _CHUNK))):
            part.write(chunk)
            size -= len(chunk)
