"""``gandissect new analyzer NAME``: a complete plugin package to start from.

gandissect new analyzer mean-colour      # gandissect-mean-colour/ with module, pyproject.toml, test and workflow
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import click

from gandissect.__about__ import __version__
from gandissect.errors import UsageError

FILES = {
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "readme.md.txt",
    "{module}.py": "module.py.txt",
    "tests/test_{module}.py": "test.py.txt",
    ".github/workflows/test.yml": "workflow.yml.txt",
}


@click.group()
def new() -> None:
    """Write the skeleton of a plugin."""


@new.command()
@click.argument("name")
@click.option("--into", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="Folder to write it in.")
def analyzer(name: str, into: Path) -> None:
    """Write a package with an analyzer called NAME (kebab-case), its test and its workflow."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UsageError(f"{name!r} is not a name for an analyzer: expected kebab-case such as mean-colour")
    package = into / f"gandissect-{name}"
    if package.exists():
        raise UsageError(f"{package} exists already; choose another name or remove it")
    words = {
        "@NAME@": name,
        "@MODULE@": f"gandissect_{name.replace('-', '_')}",
        "@CLASS@": "".join(part.capitalize() for part in name.split("-")),
        "@TITLE@": name.replace("-", " ").capitalize(),
        "@VERSION@": __version__,
    }
    for target, template in FILES.items():
        text = resources.files("gandissect.cli").joinpath("templates", template).read_text("utf-8")
        for mark, word in words.items():
            text = text.replace(mark, word)
        path = package / target.format(module=words["@MODULE@"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    click.echo(str(package))
    click.echo(f"next: pip install -e {package} && gandissect analyze CHECKPOINT -a {name}", err=True)
