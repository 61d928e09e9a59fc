"""Addresses are fetched once, checked, and never guessed."""

from __future__ import annotations

import builtins
import http.server
import sys
import threading
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import gandissect
from gandissect.cli import main
from gandissect.errors import NotOpened, UsageError
from gandissect.files.fetching import fetched, is_address
from gandissect.testing import tiny_gan


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """(address, folder) of a server on this machine; the cache is a folder of the test."""
    pytest.importorskip("pooch", reason="the extra 'hub' is not installed")
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setattr("pooch.os_cache", lambda _name: tmp_path / "cache")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", folder
    server.shutdown()


def test_a_checkpoint_at_an_address_opens(served: tuple[str, Path]) -> None:
    address, folder = served
    generator = tiny_gan("random").generator.module
    torch.jit.trace(generator, torch.randn(2, 32)).save(str(folder / "G.pt"))
    gan = gandissect.open(f"{address}/G.pt", device="cpu")
    z = torch.randn(3, 32)
    torch.testing.assert_close(gan.generator.module(z), generator(z))


def test_the_hash_in_an_address_is_checked(served: tuple[str, Path]) -> None:
    address, folder = served
    (folder / "G.pth").write_bytes(b"some bytes")
    good = sha256(b"some bytes").hexdigest()
    assert fetched(f"{address}/G.pth#sha256={good}").read_bytes() == b"some bytes"
    with pytest.raises(NotOpened, match="hash"):
        fetched(f"{address}/G.pth#sha256={'0' * 64}")


def test_what_is_not_there_is_said_in_one_sentence(
    served: tuple[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["inspect", f"{served[0]}/none.pth"])
    assert end.value.code == 4
    assert "cannot be fetched: 404" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("http://example.org/G.pth", "use https"),
        ("https://example.org/", "names no file"),
        ("hf://justone", "expected hf://owner/repo"),
    ],
)
def test_a_wrong_address_is_refused_before_anything_is_asked_for(source: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        fetched(source)


def test_a_path_is_no_address() -> None:
    assert not is_address("ckpt.pt")
    assert not is_address(Path("https:/x"))
    assert is_address("hf://owner/repo")


def test_the_hub_is_asked_for_the_file_and_revision_that_were_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []
    stub = SimpleNamespace(
        hf_hub_download=lambda repo, file, revision: asked.append((repo, file, revision)) or "/x/f",
        snapshot_download=lambda repo, revision, allow_patterns: asked.append((repo, revision)) or "/x",
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", stub)
    assert fetched("hf://a/b@v1/sub/G.pth") == Path("/x/f")
    assert fetched("hf://a/b") == Path("/x")
    assert asked == [("a/b", "sub/G.pth", "v1"), ("a/b", None)]


def test_without_the_extra_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: object, **given: object) -> object:
        if name in ("pooch", "huggingface_hub"):
            raise ImportError(name)
        return real(name, *args, **given)  # type: ignore[arg-type]  # passed through as it came

    monkeypatch.setattr(builtins, "__import__", missing)
    monkeypatch.delitem(sys.modules, "huggingface_hub", raising=False)
    monkeypatch.delitem(sys.modules, "pooch", raising=False)
    for source in ("hf://a/b", "https://example.org/G.pth"):
        with pytest.raises(NotOpened, match=r"pip install 'gandissect\[hub\]'"):
            fetched(source)
