"""Which container a file is, told by its bytes; and one helpful sentence for everything that is no checkpoint.

container_of(Path("ckpt.pt"))           # "torch-zip"
"""

from __future__ import annotations

import json
import re
from math import prod
from pathlib import Path
from typing import cast

from gandissect.errors import NotOpened
from gandissect.files.archives import DAMAGED, check_sizes, is_tar, open_zip

LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.serialization.MAGIC_NUMBER as a pickle
MAX_HEADER = 2**24  # bytes of JSON that describe tensors: over 100,000 of them
_ACCEPTED = (
    "a checkpoint is a file written by torch.save, torch.jit.save, torch.export.save, safetensors, pickle or ONNX"
)
_SPACES = re.compile(r"\s+")
_NOT_CHECKPOINTS: tuple[tuple[bytes, str], ...] = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras?); save its weights as .safetensors with the layers' PyTorch shapes"),
    (b"\x93NUMPY", "a single NumPy array; a checkpoint has named tensors"),
    (b"\x1f\x8b", "gzip-compressed more than once; unpack it first (gunzip or tar -xzf)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-zip archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"\xfd7zXZ", "xz-compressed; unpack it first"),
    (b"BZh", "bzip2-compressed; unpack it first"),
    (b"\x89PNG", "a PNG image; pass the checkpoint that drew it"),
    (b"\xff\xd8\xff", "a JPEG image; pass the checkpoint that drew it"),
    (b"GIF8", "a GIF image; pass the checkpoint that drew it"),
    (b"%PDF", "a PDF document"),
    (b"\x7fELF", "a compiled program"),
    (b"MZ", "a Windows program"),
)


def container_of(path: Path) -> str:
    """torch-zip, torch-legacy, torchscript, export, safetensors, pickle or onnx.

    Raises:
        NotOpened: missing, empty, a directory, damaged, or something else; the sentence says what it is.
    """
    _check_file(path)
    with path.open("rb") as file:
        head = file.read(4096)
    if head.startswith(b"PK\x03\x04"):
        return _zip_kind(path)
    if head.startswith(LEGACY_MAGIC):
        return "torch-legacy"
    for magic, what in _NOT_CHECKPOINTS:
        if head.startswith(magic):
            raise NotOpened(f"{path} is {what}")
    if is_tar(head[:512]):
        raise NotOpened(f"{path} is a tar archive in archives; unpack it (tar -xf) and pass the checkpoint inside")
    if head[:4] in (b"PK\x05\x06", b"PK\x07\x08"):
        raise NotOpened(f"{path} is an empty zip archive, or one of several parts; {_ACCEPTED}")
    if _is_safetensors(path, head):
        return "safetensors"
    if head[:1] == b"\x80":
        return "pickle"
    if path.suffix.lower() == ".onnx" or (head[:1] == b"\x08" and head[2:3] in (b"\x12", b"\x3a", b"\x42")):
        return "onnx"
    _refuse_text(path, head)
    if head[:1] in b"(]}lcd" and b"." in head:  # protocol 0 pickles start with a plain character
        return "pickle"
    raise NotOpened(f"{path} is of no known kind (it starts with {head[:8]!r}); {_ACCEPTED}")


def _check_file(path: Path) -> None:
    if not path.exists():
        near = sorted(path.parent.glob(f"{path.stem}*"))[:3] if path.parent.is_dir() else []
        meant = f"; did you mean {', '.join(map(str, near))}?" if near else "; check the path"
        raise NotOpened(f"there is no file {path}{meant}")
    if not path.is_file():
        raise NotOpened(f"{path} is not a regular file; pass a checkpoint file")
    if path.stat().st_size == 0:
        raise NotOpened(f"{path} is empty (0 bytes): saving or copying it failed; save or download it again")


def _refuse_text(path: Path, head: bytes) -> None:
    """One sentence for pointers, web pages and other text."""
    start = head.lstrip()[:200].lower()
    if start.startswith(b"version https://git-lfs"):
        raise NotOpened(f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull` (or download it) first")
    if start.startswith((b"<!doctype html", b"<html")):
        raise NotOpened(f"{path} is a web page (a failed download?), not a checkpoint; download the raw file again")
    text = _as_text(head)
    if text is None:
        return
    if head[:1] in b"(]}lcd" and (b"\n(" in head or b"\ntR." in head or b"\nR." in head or b"\np0" in head):
        return  # looks like a protocol 0 pickle
    first = _SPACES.sub(" ", text.strip())[:60]
    if start.startswith((b"<?xml", b"<error")):
        raise NotOpened(f"{path} is an XML message ({first!r}), probably of a server that refused; download it again")
    if re.match(r"\d{3}\b|not found|access denied|forbidden|rate limit", first, re.I):
        raise NotOpened(
            f"{path} is a server's refusal ({first!r}), not the file; check the address and download it again"
        )
    if first.startswith("{"):
        raise NotOpened(
            f"{path} is a JSON text ({first!r}), settings or a server's message; pass the file with the weights"
        )
    raise NotOpened(f"{path} is a text file (it begins {first!r}), not a checkpoint; {_ACCEPTED}")


def _as_text(head: bytes) -> str | None:
    """The first bytes of a file as text, None where they are none."""
    try:
        text = head.decode("utf-8", errors="strict" if len(head) < 4096 else "ignore")
    except UnicodeDecodeError:
        return None
    readable = sum(c.isprintable() or c.isspace() for c in text) >= 0.95 * len(text)
    return text if text.strip() and "\0" not in text and readable else None


def _zip_kind(path: Path) -> str:
    with open_zip(path) as archive:
        check_sizes(path, archive)
        names = archive.namelist()
    inner = {name.partition("/")[2] for name in names}
    if "archive_format" in inner or "archive_format" in names:
        return "export"
    if any(name.startswith("code/") for name in inner) and "data.pkl" in inner:
        return "torchscript"
    if "data.pkl" in inner:
        return "torch-zip"
    kind = "a NumPy .npz archive" if names and all(name.endswith(".npy") for name in names) else "a plain zip archive"
    raise NotOpened(f"{path} is {kind} without a torch data.pkl; {_ACCEPTED}")


def _is_safetensors(path: Path, head: bytes) -> bool:
    """Whether it starts with a length and a JSON header (https://github.com/huggingface/safetensors#format)."""
    if len(head) < 10 or head[8:9] != b"{":
        return False
    length = int.from_bytes(head[:8], "little")
    if length > MAX_HEADER:
        return False
    if 8 + length > path.stat().st_size:
        raise NotOpened(f"{path} is a truncated safetensors file: its header alone needs {length} bytes; copy it again")
    return True


def safetensors_header(path: Path) -> tuple[dict[str, dict[str, object]], int]:
    """(header, where the tensors begin); the header maps names to {"dtype", "shape", "data_offsets"}, and "__metadata__".

    Shapes and offsets are whole numbers that lie in the file, and names are there once.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(min(length, MAX_HEADER)), object_pairs_hook=_once)
            facts = header.pop("__metadata__", {})
            ends = [_end(entry) for entry in header.values()]
        except DAMAGED as error:
            raise NotOpened(f"{path} has a damaged safetensors header ({error}); copy or save it again") from error
    if max(ends, default=0) > size - 8 - length:
        raise NotOpened(f"{path} is a truncated safetensors file: tensor bytes are missing at its end; copy it again")
    return {**header, "__metadata__": facts if isinstance(facts, dict) else {}}, 8 + length


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name is there twice")
    return table


def _end(entry: dict[str, object]) -> int:
    """The offset at which a tensor's bytes end, once its numbers make sense."""
    shape, (start, end) = cast("list[int]", entry["shape"]), cast("list[int]", entry["data_offsets"])
    if not all(type(number) is int and 0 <= number < 2**60 for number in (*shape, start, end)) or len(shape) > 64:
        raise ValueError("shapes and offsets are whole numbers from 0")
    if end < start or (prod(shape) > 0) != (end > start) or prod(shape) > 8 * (end - start):
        raise ValueError("a shape does not fit its bytes")
    return end
