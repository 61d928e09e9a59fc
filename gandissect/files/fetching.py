"""Checkpoints that are somewhere else: fetched when, and only when, an address is given in place of a path.

fetched("https://example.org/G.pth#sha256=9f86…")       # Path in the user's cache
fetched("hf://owner/repo")                              # a folder with the repository's checkpoint and config
fetched("hf://owner/repo@v1/netG.pth")                  # one file of one revision
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urldefrag, urlsplit

from gandissect.errors import NotOpened, UsageError

SCHEMES = ("https://", "http://", "hf://")
_KINDS = ("*.json", "*.safetensors", "*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt", "*.pt2", "*.onnx")
_HUB = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^/]+))?(/(?P<file>.+))?")
_INSTALL = "type: pip install 'gandissect[hub]'"


def is_address(source: object) -> bool:
    """Whether ``source`` names something to fetch and not a file."""
    return isinstance(source, str) and source.startswith(SCHEMES)


def fetched(source: str, kinds: Sequence[str] = _KINDS) -> Path:
    """Where the file or folder at an address lies on this machine, after fetching it once.

    Args:
        source: ``https://…`` (``#sha256=…`` at its end has it checked) or ``hf://owner/repo[@revision][/file]``; plain
            ``http://`` for this machine only.
        kinds: what is fetched of a whole repository, as patterns of file names.

    Raises:
        UsageError: no address of these forms.
        NotOpened: the extra is missing, nothing is there, or it is not what its hash says.
    """
    return _from_hub(source, kinds) if source.startswith("hf://") else _from_web(source)


def _from_web(source: str) -> Path:
    address, fragment = urldefrag(source)
    parts = urlsplit(address)
    if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise UsageError(f"{address} is not encrypted, so anyone on the way could change the file; use https://")
    name = Path(parts.path).name
    if not name:
        raise UsageError(f"{address} names no file; give the address of the checkpoint itself")
    try:
        import pooch
    except ImportError as error:
        raise NotOpened(f"{address} is an address; to fetch it, {_INSTALL}") from error
    known = fragment.replace("=", ":", 1) if fragment.startswith("sha256=") else None
    try:
        return Path(pooch.retrieve(address, known_hash=known, path=pooch.os_cache("gandissect"), progressbar=False))
    except ValueError as error:
        raise NotOpened(f"{address} is not the file whose hash was given ({fragment}); it was not kept") from error
    except Exception as error:  # requests raises many kinds
        raise NotOpened(f"{address} cannot be fetched: {_first_line(error)}") from error


def _from_hub(source: str, kinds: Sequence[str]) -> Path:
    parsed = _HUB.fullmatch(source)
    if parsed is None:
        raise UsageError(f"{source!r} is no address on the Hub; expected hf://owner/repo or hf://owner/repo/file.pth")
    try:
        import huggingface_hub
    except ImportError as error:
        raise NotOpened(f"{source} is on the Hugging Face Hub; to fetch it, {_INSTALL}") from error
    repo, revision, file = parsed["repo"], parsed["revision"], parsed["file"]
    try:
        if file:
            return Path(huggingface_hub.hf_hub_download(repo, file, revision=revision))
        return Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=list(kinds)))
    except Exception as error:  # the Hub's errors are many and change
        raise NotOpened(f"{source} cannot be fetched from the Hub: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
