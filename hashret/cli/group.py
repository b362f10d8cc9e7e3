"""The command that all verbs are added to, and how it ends where the user made a mistake."""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from typing import Any, NoReturn

import click

from .. import __version__
from ..distributed import SaidElsewhereError, is_main
from ..errors import HashretError
from ..registry import load_plugins
from .options import talk
from .output import say


class _Group(click.Group):
    """Prints a mistake of the user as one line and exits with 2; plugins may add verbs to it."""

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
            with warnings.catch_warnings():
                warnings.showwarning = lambda message, *_: say(f"note: {message}", err=True)
                status = super().main(*args, **options)
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else "hashret"
            line = " ".join(error.format_message().split())
            _leave(f"{line} Try '{path} --help'." if is_main() else "")  # all processes have the same arguments
        except SaidElsewhereError:
            _leave("")
        except (click.ClickException, HashretError) as error:
            _leave(str(error))
        except (click.Abort, KeyboardInterrupt):
            _leave("interrupted; what was written stays", 130)
        except BrokenPipeError:  # hashret query ... | head
            with contextlib.suppress(OSError):
                sys.stdout.close()
            sys.exit(0)
        except OSError as error:  # a name that is too long, a folder that may not be looked into
            if not error.filename:
                raise
            _leave(f"cannot open {error.filename}: {error.strerror}")
        except Exception as error:
            torch = sys.modules.get("torch")  # whose error it can only be where torch was imported
            if torch is None or not isinstance(error, torch.OutOfMemoryError):
                raise
            _leave("the memory of the device is full; lower --batch-size or --image-size")
        sys.exit(status if isinstance(status, int) else 0)


def _leave(line: str, status: int = 2) -> NoReturn:
    if line:
        say(f"hashret: {line}", err=True)
    sys.exit(status)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
@talk
@click.pass_context
def main(context: click.Context) -> None:
    """Image retrieval by learned binary codes.

    \b
    hashret train --data folder:photos      photographs -> model.safetensors
    hashret encode photos                   + model     -> codes/
    hashret build-index                     codes/      -> index/
    hashret query photo.jpg                 + index/    -> hits
    hashret evaluate codes-test             + index/    -> mAP

    Each verb finds what the one before it left in the working folder. `hashret demo` does all of it on
    handwritten digits, and `hashret sync FOLDER` all that a folder of photographs needs to be searched.
    """
    from .notes import LOGGER, notes

    if not LOGGER.level:  # neither --quiet nor --verbose
        context.with_resource(notes("INFO"))
