"""The command group and how errors leave it.

main(["analyze", "ckpt.pt"])             # exits 0, 1, 2, 3, 4 or 130; see docs/cli.md
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

import click

from gandissect.__about__ import __version__
from gandissect.errors import EXIT_INTERNAL, EXIT_INTERRUPTED, GandissectError, strict

_COMMANDS = {
    "analyze": ("gandissect.cli.analyze", "analyze", "Explain a checkpoint in one HTML report."),
    "demo": ("gandissect.cli.analyze", "demo", "Analyze the bundled GAN, whose concepts are known."),
    "compare": ("gandissect.cli.compare", "compare", "Compare two checkpoints on the same latents."),
    "series": ("gandissect.cli.series", "series", "Follow a training through its checkpoints and losses."),
    "inspect": ("gandissect.cli.inspect", "inspect", "Say what is in a file and what can be done with it."),
    "layers": ("gandissect.cli.inspect", "layers", "List the layers that can be read and edited."),
    "invert": ("gandissect.cli.invert", "invert", "Find the latents that come nearest to images."),
    "edit": ("gandissect.cli.edit", "edit", "Draw samples moved along a direction as one strip of pictures."),
    "plugins": ("gandissect.cli.plugins", "plugins", "List plugins, or the options of an analyzer."),
    "new": ("gandissect.cli.new", "new", "Write the skeleton of a plugin."),
}


class LazyGroup(click.Group):
    """Commands are imported when they are run; those of plugins are looked for only when a name is not one of ours."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _COMMANDS:
            import importlib

            module, attribute, _ = _COMMANDS[cmd_name]
            command: click.Command = getattr(importlib.import_module(module), attribute)
            return command
        if cmd_name not in self.commands:
            from gandissect.plugins import load_plugins

            load_plugins().add_commands(self)
        return self.commands.get(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list for ``--help``, written from the table above so that nothing is imported for it."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, "-V", "--version", prog_name="gandissect")
def cli() -> None:
    """Open any GAN checkpoint and explain it, with evidence.

    \b
      gandissect demo                      the bundled GAN, no file needed
      gandissect analyze ckpt.pt           one HTML report and its JSON
      gandissect inspect ckpt.pt           what is in the file, nothing is run
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code; an error is one line on stderr, or one JSON object with ``--json``."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = cli.main(given, prog_name="gandissect", standalone_mode=False, obj=given)
    except click.ClickException as error:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and int(os.environ.get("RANK", "0")) > 0:
            sys.exit(error.exit_code)  # the first of several processes says it
        _fail(given, error.exit_code, "UsageError", _click_message(error))
    except click.Abort:
        _fail(given, EXIT_INTERRUPTED, "Interrupted", "interrupted")
    except KeyboardInterrupt:
        _fail(given, EXIT_INTERRUPTED, "Interrupted", "interrupted")
    except GandissectError as error:
        _fail(given, error.exit_code, type(error).__name__, str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if strict():
            raise
        _fail(
            given,
            EXIT_INTERNAL,
            type(error).__name__,
            f"{error} (a fault of gandissect; GANDISSECT_STRICT=1 shows where)",
        )
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _click_message(error: click.ClickException) -> str:
    hint = ""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f" (see `{error.ctx.command_path} --help`)"
    return f"{error.format_message()}{hint}"


def _fail(given: Sequence[str], code: int, kind: str, message: str) -> None:
    from gandissect.cli.console import printable

    message = printable(" ".join(message.split()))
    if "--json" in given:
        click.echo(json.dumps({"error": {"type": kind, "message": message, "exit_code": code}}, ensure_ascii=False))
    else:
        click.echo(f"{kind}: {message}", err=True)
    sys.exit(code)
