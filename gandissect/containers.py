"""Which container a file is, told by its bytes; and one helpful sentence for everything that is no checkpoint.

container_of(Path("ckpt.pt"))           # "torch-zip"
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from gandissect.errors import NotOpened

LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.serialization.MAGIC_NUMBER as a pickle
MAX_INFLATION = 50  # declared size of a zip's members over its size on disk
_ACCEPTED = (
    "a checkpoint is a file written by torch.save, torch.jit.save, torch.export.save, safetensors, pickle or ONNX"
)
_NOT_CHECKPOINTS: tuple[tuple[bytes, str], ...] = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras?); save its weights as .safetensors with the layers' PyTorch shapes"),
    (b"\x93NUMPY", "a single NumPy array; a checkpoint has named tensors"),
    (b"\x1f\x8b", "gzip-compressed; unpack it first (gunzip or tar -xzf)"),
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
    if head[257:262] == b"ustar":
        raise NotOpened(f"{path} is a tar archive; unpack it (tar -xf) and pass the checkpoint inside")
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
    if path.is_dir():
        inside = [
            p for p in sorted(path.iterdir()) if p.suffix in (".pt", ".pth", ".ckpt", ".pkl", ".pt2", ".safetensors")
        ]
        hint = f"pass one of its files: {', '.join(p.name for p in inside[:5])}" if inside else "pass a checkpoint file"
        raise NotOpened(f"{path} is a directory; {hint}")
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
    try:
        text = head.decode("utf-8", errors="strict" if len(head) < 4096 else "ignore")
    except UnicodeDecodeError:
        return
    if "\0" in text or not text.strip() or sum(c.isprintable() or c.isspace() for c in text) < 0.95 * len(text):
        return
    if head[:1] in b"(]}lcd" and (b"\n(" in head or b"\ntR." in head or b"\nR." in head or b"\np0" in head):
        return  # looks like a protocol 0 pickle
    first = text.strip().splitlines()[0][:40]
    raise NotOpened(f"{path} is a text file (it begins {first!r}), not a checkpoint; {_ACCEPTED}")


def _zip_kind(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise NotOpened(
            f"{path} is damaged or truncated: it starts like a torch archive but its end is missing ({error}); "
            "copy or download it again"
        ) from error
    names = [member.filename for member in members]
    if sum(member.file_size for member in members) > MAX_INFLATION * path.stat().st_size + 2**20:
        raise NotOpened(f"{path} claims to unpack to over {MAX_INFLATION} times its size; no checkpoint does")
    inner = {name.partition("/")[2] for name in names}
    if "archive_format" in inner or "archive_format" in names:
        return "export"
    if any(name.startswith("code/") for name in inner) and "data.pkl" in inner:
        return "torchscript"
    if "data.pkl" in inner:
        return "torch-zip"
    weights = [name for name in names if name.endswith((".pt", ".pth", ".ckpt", ".pkl", ".tar", ".safetensors"))]
    hint = f"unpack it and pass {weights[0]}" if weights else _ACCEPTED
    kind = "a NumPy .npz archive" if names and all(name.endswith(".npy") for name in names) else "a plain zip archive"
    raise NotOpened(f"{path} is {kind} without a torch data.pkl; {hint}")


def _is_safetensors(path: Path, head: bytes) -> bool:
    """Whether it starts with a length and a JSON header (https://github.com/huggingface/safetensors#format)."""
    if len(head) < 10 or head[8:9] != b"{":
        return False
    length = int.from_bytes(head[:8], "little")
    if length > 100_000_000:
        return False
    if 8 + length > path.stat().st_size:
        raise NotOpened(f"{path} is a truncated safetensors file: its header alone needs {length} bytes; copy it again")
    return True


def safetensors_header(path: Path) -> dict[str, dict[str, object]]:
    """The header: tensor name -> {"dtype", "shape", "data_offsets"}, and "__metadata__"; checked against the size."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length))
            ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
            ok = all(isinstance(entry, dict) for entry in header.values())
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
            raise NotOpened(f"{path} has a damaged safetensors header ({error}); copy or save it again") from error
    if not ok or max(ends, default=0) > path.stat().st_size - 8 - length:
        raise NotOpened(f"{path} is a truncated safetensors file: tensor bytes are missing at its end; copy it again")
    return dict(header)
