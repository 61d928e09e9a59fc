"""Where a report comes from: the file, the software, the settings, and the command that makes it again.

provenance(gan, session, options, plugins, seconds, command)
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path

from gandissect.__about__ import __version__
from gandissect.blocks import Json
from gandissect.gan import Gan
from gandissect.plugins import Registry
from gandissect.report import Provenance
from gandissect.session import Session

PACKAGES = ("torch", "numpy", "captum", "scikit-learn", "umap-learn", "matplotlib", "pluggy")


def redact(text: str) -> str:
    """``text`` without the user's home folder and the folder the command was given in, which may carry names."""
    for folder, short in ((Path.cwd(), "."), (Path.home(), "~")):
        if len(folder.parts) > 1:
            text = text.replace(str(folder), short)
    return text


def provenance(
    gan: Gan,
    session: Session,
    options: Mapping[str, Mapping[str, Json]],
    plugins: Registry,
    seconds: Mapping[str, float],
    command: str,
) -> Provenance:
    """The facts of a finished session."""
    opening = gan.opening
    notes = [*opening.notes, *session.notes]
    notes += [f"plugin {name} failed in {reason}" for name, reason in plugins.failures.items()]
    notes += [
        f"plugin {plugin.name} was not loaded: {redact(plugin.status)}" for plugin in plugins.plugins if plugin.broken
    ]
    return Provenance(
        command=redact(command),
        checkpoint=redact(str(opening.path)) if opening.path else gan.name,
        size=opening.size,
        sha256=opening.sha256,
        opened_by=opening.adapter,
        why=opening.why,
        alternatives=opening.alternatives,
        assumptions=tuple((a.name, a.value, a.because, a.sure) for a in opening.assumptions),
        verification=opening.verification,
        seed=session.seed,
        samples=session.n,
        batch_size=session.batch_size,
        device=str(gan.generator.device),
        real_images=f"{redact(session.real.name)} ({len(session.real)} images)" if session.real else "none given",
        options=dict(options),
        versions=versions(),
        plugins={
            plugin.name: f"{plugin.source} {plugin.version}".strip() for plugin in plugins.plugins if not plugin.broken
        },
        created=now(),
        seconds={name: round(value, 3) for name, value in seconds.items()},
        passes=session.passes,
        images_generated=session.images_generated,
        notes=tuple(notes),
    )


def versions() -> dict[str, str]:
    """Of gandissect, Python and the packages that numbers depend on."""
    found = {"gandissect": __version__, "python": platform.python_version(), "system": platform.system()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def now() -> str:
    """UTC, to the second; ``SOURCE_DATE_EPOCH`` in the environment fixes it for reproducible files."""
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))
