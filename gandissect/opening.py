"""Open a checkpoint, or wrap modules that are already there.

gan = gandissect.open("ckpt.pt")                                  # architecture recognised, nothing of the file is run
gan = gandissect.open("G.pth", discriminator="D.pth")
gan = gandissect.open((generator, discriminator), latent=(100, 1, 1))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from gandissect.adapter import Adapter, Hints, Match, Networks, joined
from gandissect.errors import GandissectError, NotOpened, UnsafeCheckpoint, UsageError, strict, unknown_name
from gandissect.files.fetching import fetched, is_address
from gandissect.files.peek import Peek, peek
from gandissect.gan import Gan, Opening
from gandissect.plugins import Registry, load_plugins
from gandissect.probing.building import build_gan, infer_image_shape
from gandissect.probing.latents import infer_latent

if TYPE_CHECKING:
    from gandissect.gan import LatentSpace

Source = str | Path | nn.Module | Sequence[nn.Module]


@dataclass(frozen=True)
class Candidate:
    """An adapter that could open a file, and how well it fits."""

    adapter: Adapter
    match: Match

    def __str__(self) -> str:
        return f"{self.adapter.name} ({self.match.score:.2f}: {self.match.why})"


def open(
    source: Source,
    *,
    discriminator: str | Path | nn.Module | None = None,
    generator: str | None = None,
    settings: Mapping[str, object] | None = None,
    discriminator_settings: Mapping[str, object] | None = None,
    latent: tuple[int, ...] | None = None,
    assume: Mapping[str, str] | None = None,
    adapter: str | None = None,
    trust: bool = False,
    device: str = "auto",
    name: str | None = None,
    registry: Registry | None = None,
) -> Gan:
    """The GAN in a file, or around modules that are already there.

    Args:
        source: a checkpoint's path or address (https://…, hf://owner/repo), a generator, or (generator, discriminator).
        discriminator: another checkpoint, ``file.py:Class`` or ``package.module:factory`` (its weights come from ``source``), or
            a module.
        generator: ``file.py:Class`` or ``package.module:factory`` that builds the generator; not needed where the architecture is
            recognised.
        settings: keyword arguments for it.
        discriminator_settings: keyword arguments for the discriminator's class.
        latent: shape of one latent, where it cannot be told.
        assume: overrides what recognition searches, such as ``{"activation": "lrelu0.2", "prior": "uniform"}``.
        adapter: name of the adapter to use instead of the one that fits best.
        trust: allow running code that comes out of the file.
        device: "auto" (CUDA where there is one), or a torch device; modules that are given stay where they are.
        name: what the report calls it.
        registry: plugins; the installed ones by default.

    Raises:
        NotOpened: no checkpoint, damaged, not a GAN, or no architecture fits.
        UnsafeCheckpoint: it cannot be read without running code of it.
        UsageError: an argument that does not make sense.
    """
    if isinstance(source, nn.Module) or (not isinstance(source, (str, Path)) and isinstance(source, Sequence)):
        modules = [source] if isinstance(source, nn.Module) else list(source)
        if isinstance(discriminator, nn.Module):
            modules = [*modules[:1], discriminator]
        return wrap(*modules, latent=latent, name=name)
    if not isinstance(source, (str, Path)):
        raise UsageError(
            f"cannot open {type(source).__name__}; expected a path, a module or (generator, discriminator)"
        )
    if is_address(source):
        source = fetched(str(source))
    if is_address(discriminator):
        discriminator = fetched(str(discriminator))
    code, path = _discriminator_source(discriminator)
    hints = Hints(
        trust,
        adapter,
        generator,
        dict(settings or {}),
        code,
        dict(discriminator_settings or {}),
        path,
        latent,
        dict(assume or {}),
    )
    return _open_file(Path(source), hints, registry or load_plugins(), _device(device), name, discriminator)


def wrap(
    generator: nn.Module,
    discriminator: nn.Module | None = None,
    *,
    encoder: nn.Module | None = None,
    latent: tuple[int, ...] | LatentSpace | None = None,
    num_classes: int = 0,
    output_range: tuple[float, float] | None = None,
    name: str | None = None,
) -> Gan:
    """A Gan around live modules; they stay on their device and are left as they are.

    Args:
        generator: called with latents [N, *shape] (and int64 labels [N] where ``num_classes`` is given).
        discriminator: called with images; a sigmoid at its end is noticed.
        encoder: called with images in the generator's own range, gives latents; used where it finds those of samples again.
        latent: shape of one latent or a whole space; inferred from the first layer where left out.
        num_classes: number of labels, 0 for none.
        output_range: what the generator's output spans; told from what it makes where left out.
        name: what the report calls it.

    Raises:
        NotOpened: the generator does not run on its latent or makes no images.
    """
    from gandissect.gan import LatentSpace

    space = latent if isinstance(latent, LatentSpace) else infer_latent(generator, latent)
    networks = Networks(
        generator, discriminator, space, output_range=output_range, num_classes=num_classes, encoder=encoder
    )
    kind = type(generator).__name__
    opening = Opening("live", "given as modules", family=kind)
    return build_gan(networks, name=name or kind, opening=opening)


def candidates(seen: Peek, registry: Registry) -> list[Candidate]:
    """Every adapter that could open the file, the best first."""
    found = [Candidate(adapter, match) for adapter in registry.adapters() if (match := adapter.match(seen)) is not None]
    return sorted(found, key=lambda candidate: -candidate.match.score)


def _discriminator_source(given: str | Path | nn.Module | None) -> tuple[str | None, Path | None]:
    """(code, None) for ``file.py:Class``, (None, path) for a checkpoint."""
    if given is None or isinstance(given, nn.Module):
        return None, None
    if isinstance(given, str) and ":" in given.replace("::", "") and not Path(given).exists():
        return given, None
    return None, Path(given)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {name!r} cannot be used here: {reason}; try --device cpu") from error
    return device


def _open_file(
    path: Path, hints: Hints, registry: Registry, device: torch.device, name: str | None, given: object
) -> Gan:
    seen = peek(path)
    chosen, others = _choose(seen, hints, registry)
    networks = _load(chosen, others, seen, hints)
    if isinstance(given, nn.Module):
        networks = replace(networks, discriminator=given)
    if hints.discriminator_path is not None:
        networks = _with_discriminator(networks, hints, registry)
    for module in (networks.generator, networks.discriminator, networks.encoder):
        if module is not None:
            module.to(device).eval()
    opening = Opening(
        chosen.adapter.name,
        chosen.match.why,
        family=networks.family,
        score=chosen.match.score,
        path=path,
        container=seen.container,
        size=seen.size,
        sha256=seen.sha256,
        alternatives=tuple(str(other) for other in others),
        assumptions=networks.assumptions,
        verification=networks.verification or Opening.verification,
        mismatch=networks.mismatch,
        notes=networks.notes,
        generators=networks.generators,
    )
    return build_gan(networks, name=name or path.name, opening=opening)


def _trusted_order(found: Sequence[Candidate], hints: Hints) -> list[Candidate]:
    """Those that run code of the file first where the user trusts it, last where not."""
    return sorted(found, key=lambda candidate: candidate.match.runs_code != hints.trust)


def _choose(seen: Peek, hints: Hints, registry: Registry) -> tuple[Candidate, list[Candidate]]:
    """The adapter to open with, and those that could have."""
    wanted = hints.adapter or ("user-code" if hints.generator else None)
    found = candidates(seen, registry)
    if wanted is None:
        if not found:
            raise NotOpened(f"{seen.path.name} is a {seen.container} file that no adapter can open")
        found = _trusted_order(found, hints)
        return found[0], found[1:]
    known = {adapter.name: adapter for adapter in registry.adapters()}
    if wanted not in known:
        raise unknown_name("adapter", wanted, known, "(`gandissect plugins` lists all)")
    why = "chosen with --adapter" if hints.adapter else "code was given with --generator"
    match = next((c.match for c in found if c.adapter.name == wanted), Match(1.0, why))
    return Candidate(known[wanted], match), [c for c in found if c.adapter.name != wanted]


def _load(chosen: Candidate, others: Sequence[Candidate], seen: Peek, hints: Hints) -> Networks:
    try:
        networks = chosen.adapter.open(seen, hints)
    except NotOpened as error:
        running = [other for other in others if other.match.runs_code]
        if chosen.match.runs_code or hints.adapter or not running:
            raise
        try:  # to say what trust would change; it refuses, as the file is not trusted
            networks = running[0].adapter.open(seen, hints)
        except UnsafeCheckpoint as unsafe:
            raise unsafe from error
    except (GandissectError, NameError, ImportError):
        raise
    except Exception as error:  # a damaged file may lead an adapter anywhere
        if strict():
            raise
        reason = " ".join(str(error).split())[:160]
        raise NotOpened(
            f"{seen.path.name} is not opened: its contents led to {type(error).__name__} ({reason}); GANDISSECT_STRICT=1 shows where"
        ) from error
    if networks.generator is None:
        raise NotOpened(
            f"{seen.path.name} holds a discriminator and no generator; pass the generator's checkpoint, and this one with "
            "--discriminator"
        )
    return networks


def _with_discriminator(networks: Networks, hints: Hints, registry: Registry) -> Networks:
    """The same networks with the discriminator of ``hints.discriminator_path``."""
    assert hints.discriminator_path is not None
    seen = peek(hints.discriminator_path)
    found = _trusted_order(candidates(seen, registry), hints)
    if not found:
        raise NotOpened(f"{seen.path.name} is a {seen.container} file that no adapter can open as a discriminator")
    opened = found[0].adapter.open_discriminator(seen, hints, networks, infer_image_shape(networks))
    if opened.discriminator is None:
        raise NotOpened(f"no discriminator in {seen.path.name}")
    return joined(networks, opened)
