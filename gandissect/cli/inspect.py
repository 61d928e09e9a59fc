"""``gandissect inspect`` and ``gandissect layers``.

gandissect inspect ckpt.pt --json
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gandissect.cli.analyze import OpenOptions, open_with, opening_options
from gandissect.cli.console import printable
from gandissect.cli.source import located
from gandissect.errors import NotOpened

if TYPE_CHECKING:
    from gandissect.blocks import Json
    from gandissect.files.peek import Peek
    from gandissect.gan import Gan
    from gandissect.plugins import Registry


@click.command()
@click.argument("checkpoint", callback=located)
@opening_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--verify", "with_checks", is_flag=True, help="Run the checks: statistics, batch independence, unused weights …"
)
@click.option(
    "--export",
    "code",
    type=click.Path(path_type=Path),
    metavar="MODEL.PY",
    help="Write the generator as PyTorch code, with its weights beside it as safetensors.",
)
def inspect(checkpoint: Path, as_json: bool, with_checks: bool, code: Path | None, **given: object) -> int:
    """Say what is in CHECKPOINT, who could open it, and what would be possible; nothing of the file is run."""
    from gandissect.files.peek import peek
    from gandissect.opening import candidates
    from gandissect.plugins import load_plugins

    opened = OpenOptions(**given)  # type: ignore[arg-type]  # click converted them
    registry = load_plugins(opened.plugin_files, opened.disable_plugin)
    seen = peek(checkpoint)
    found = [str(candidate) for candidate in candidates(seen, registry)]
    failure: NotOpened | None = None
    gan: Gan | None = None
    try:
        gan = open_with(checkpoint, opened, registry)
    except NotOpened as error:
        failure = error
    card = _card(seen, found, gan, registry, str(failure) if failure else "")
    if gan is not None and with_checks:
        from gandissect.probing.verifying import verify

        card["checks"] = [{**vars(check)} for check in verify(gan)]
    if gan is not None and code is not None:
        from gandissect.exporting import write_code

        card["exported"] = [str(written) for written in write_code(gan, code)]
    click.echo(printable(json.dumps(card, ensure_ascii=False, indent=2), "\n") if as_json else _as_text(card))
    return failure.exit_code if failure else 0


@click.command()
@click.argument("checkpoint", callback=located)
@opening_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def layers(checkpoint: Path, as_json: bool, **given: object) -> int:
    """List the layers of CHECKPOINT that can be read; * marks those analyzed by default."""
    gan = open_with(checkpoint, OpenOptions(**given))  # type: ignore[arg-type]  # click converted them
    card = _layers(gan)
    if as_json:
        click.echo(printable(json.dumps(card, ensure_ascii=False, indent=2), "\n"))
        return 0
    for role, rows in card.items():
        assert isinstance(rows, list)
        click.echo(f"{role}:")
        for row in rows:
            mark = "*" if row["main"] else " "
            size = f"{row['units']}×{row['height']}×{row['width']}"
            edit = "" if row["editable"] else "  (read only)"
            click.echo(f" {mark} {printable(str(row['name'])):<32} {row['kind']:<18} {size:>14}{edit}")
    return 0


def _layers(gan: Gan) -> dict[str, Json]:
    networks = [gan.generator, *([gan.discriminator] if gan.discriminator else [])]
    return {
        network.role: [
            {
                "name": info.name,
                "kind": info.kind,
                "units": info.channels,
                "height": info.height,
                "width": info.width,
                "parameters": info.parameters,
                "editable": info.editable,
                "main": info.main,
                "inputs": list(info.inputs),
            }
            for info in network.layers
        ]
        for network in networks
    }


def _card(seen: Peek, found: list[str], gan: Gan | None, registry: Registry, failure: str) -> dict[str, Json]:
    card: dict[str, Json] = {
        "file": seen.path.name,
        "container": seen.container,
        "bytes": seen.size,
        "sha256": seen.sha256,
        "tensors": len(seen.tensors),
        "first tensors": [f"{name} {list(spec.shape)}" for name, spec in list(seen.tensors.items())[:8]],
        "unknown classes": list(seen.globals),
        "facts": dict(seen.metadata),
        "could be opened by": list(found),
    }
    if gan is None:
        return {**card, "opened": False, "why not": failure}
    opening = gan.opening
    return {
        **card,
        "opened": True,
        "summary": gan.summary,
        "opened by": f"{opening.adapter} ({opening.why})",
        "family": opening.family,
        "verification": opening.verification,
        "assumptions": [
            f"{a.name} = {a.value}{'' if a.sure else ' (unsure)'}: {a.because}" for a in opening.assumptions
        ],
        "notes": list(opening.notes),
        "latent": {
            "space": gan.generator.latent.name,
            "shape": list(gan.generator.latent.shape),
            "prior": gan.generator.latent.prior,
            "further spaces": {space.name: list(space.shape) for space in gan.generator.inner},
        },
        "labels": gan.generator.num_classes,
        "range": list(gan.generator.output_range),
        "image": list(gan.generator.image_shape),
        "parameters": gan.generator.parameter_count,
        "discriminator": _critic(gan),
        "layers": len(gan.generator.layers),
        "main layers": [info.name for info in gan.generator.main_layers()],
        "can": {name: bool(value) for name, value in vars(gan.capabilities).items()},
        "analyses": _analyses(gan, registry),
    }


def _critic(gan: Gan) -> Json:
    """What is known of the discriminator; None where there is none."""
    critic = gan.discriminator
    if critic is None:
        return None
    return {
        "gives": critic.output,
        "labels": critic.num_classes,
        "parameters": critic.parameter_count,
        "layers": len(critic.layers),
    }


def _analyses(gan: Gan, registry: Registry) -> dict[str, Json]:
    """Analyzer -> "would run" or what it lacks."""
    from gandissect.session import Session
    from gandissect.vocabulary import build_vocabulary

    session = Session(gan, vocabulary=build_vocabulary(("colours",), registry), n=1)
    return {name: cls.needs.missing(session) or "would run" for name, cls in registry.analyzers().items()}


def _as_text(card: Mapping[str, Json]) -> str:
    """The card as indented lines."""
    lines = []
    for key, value in card.items():
        if isinstance(value, Mapping):
            lines.append(f"{key}:")
            lines += [f"    {name}: {item}" for name, item in value.items()]
        elif isinstance(value, list):
            lines.append(f"{key}:{'' if value else ' none'}")
            lines += [f"    {_line(item)}" for item in value]
        else:
            lines.append(f"{key}: {value}")
    return "\n".join(map(printable, lines))


def _line(item: Json) -> str:
    """One item of a list; a check as its verdict, name and sentence."""
    if isinstance(item, Mapping):
        return f"{item['verdict']}: {item['name']}: {item['says']}"
    return str(item)
