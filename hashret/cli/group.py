"""The command that all verbs are added to, and how it ends where the user made a mistake."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback
import warnings
from typing import Any, NoReturn

import click

from .. import __version__
from ..distributed import SaidElsewhereError, is_main
from ..errors import HashretError
from ..places import NO_WORKING_FOLDER
from ..registry import load_plugins
from .options import talk
from .output import say

# The verbs in the order of the help; those that plugins add come last.
SECTIONS = {
    "Start here": ("sync", "query", "serve", "duplicates", "compare", "demo"),
    "Step by step": ("train", "encode", "build-index", "evaluate"),
    "Research": ("explain", "report", "methods", "backbones"),
    "Maintenance": ("info", "add", "remove", "compact", "relocate", "restore", "export", "cache"),
}


class _Group(click.Group):
    """Prints a mistake of the user as one line and exits with 2; plugins may add verbs to it."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs by section."""
        names = self.list_commands(ctx)
        sections = SECTIONS | {"More": tuple(set(names).difference(*SECTIONS.values()))}
        width = max(map(len, names))
        for title, verbs in sections.items():
            rows = []
            for name in verbs:
                verb = self.get_command(ctx, name)
                assert verb is not None
                rows.append((name.ljust(width), verb.get_short_help_str(formatter.width - width - 6)))
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a verb, of a plugin where hashret itself has none of that name."""
        if cmd_name not in self.commands:
            load_plugins()
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the verbs, with those of the plugins."""
        load_plugins()
        return super().list_commands(ctx)

    def main(self, *args: Any, **options: Any) -> Any:
        """Run the command line, and exit with its status."""
        options["standalone_mode"] = False  # click raises then, instead of printing
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # no letter of a name ends a run on an ASCII terminal
        try:
            try:
                with warnings.catch_warnings():
                    warnings.showwarning = lambda message, *_: say(f"note: {message}", err=True)
                    status = super().main(*args, **options)
            except click.exceptions.NoArgsIsHelpError as error:
                click.echo(error.format_message())
                status = 0
            _flush()  # what is left at the exit of the interpreter ends in a traceback
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else "hashret"
            line = " ".join(error.format_message().split())
            line += "" if line.endswith((".", "?", "!", ")")) else "."  # click ends some so, and some not
            _leave(f"{line} Try '{path} --help'." if is_main() else "")  # all processes have the same arguments
        except SaidElsewhereError:
            _leave("")
        except (click.ClickException, HashretError) as error:
            _leave(str(error))
        except (click.Abort, KeyboardInterrupt):
            _leave("interrupted; what was written stays", 130)
        except BrokenPipeError:  # hashret query ... | head
            _close()
            sys.exit(0)
        except OSError as error:  # a name that is too long, a folder that may not be looked into
            if not error.filename:
                if isinstance(error, FileNotFoundError) and _is_working_folder_gone():
                    _leave(NO_WORKING_FOLDER)
                if not _is_of_output(error):
                    raise
                _close()
                _leave(f"cannot write to standard output: {error.strerror}")
            _leave(f"cannot open {error.filename}: {error.strerror}")
        except Exception as error:
            torch = sys.modules.get("torch")  # whose error it can only be where torch was imported
            if torch is None or not isinstance(error, torch.OutOfMemoryError):
                raise
            _leave("the memory of the device is full; lower --batch-size or --image-size")
        sys.exit(status if isinstance(status, int) else 0)


def _leave(line: str, status: int = 2) -> NoReturn:
    if line:
        with contextlib.suppress(OSError):  # stderr may lie on the disk that is full
            say(f"hashret: {line}", err=True)
    sys.exit(status)


def _flush() -> None:
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()


def _close() -> None:
    """Close stdout, of which nothing more can be written, so that the interpreter does not try again at its exit."""
    with contextlib.suppress(OSError):
        sys.stdout.close()


def _is_working_folder_gone() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _is_of_output(error: OSError) -> bool:
    """Return whether an error was raised by writing what a verb prints, as where stdout is a file on a full disk."""
    printing = (click.echo.__code__, _flush.__code__)
    return any(frame.f_code in printing for frame, _ in traceback.walk_tb(error.__traceback__))


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
@talk
@click.pass_context
def main(context: click.Context) -> None:
    """Image retrieval by learned binary codes.

    \b
    hashret sync photos                     makes a folder of photographs searchable
    hashret query photo.jpg                 finds the most like one
    hashret serve                           shows them to colleagues

    Step by step, each verb finds what the one before it left in the working folder; `hashret demo` does all of it
    on handwritten digits:

    \b
    hashret train --data folder:photos      photographs -> model.safetensors
    hashret encode photos                   + model     -> codes/
    hashret build-index                     codes/      -> index/
    hashret query photo.jpg                 + index/    -> hits
    hashret evaluate codes-test             + index/    -> mAP
    """
    from .notes import LOGGER, notes

    if not LOGGER.level:  # neither --quiet nor --verbose
        context.with_resource(notes("INFO"))
