"""The command line. Each verb parses, makes one call and prints."""

from __future__ import annotations

import sys
import traceback
from importlib.util import find_spec
from typing import Annotated, Any, cast

import typer
from typer.exceptions import TyperException

from vlmend.cli import attacking, auditing, datas, labelling, looking, mending, phantoms, redteaming, serving, shipping
from vlmend.cli.options import app
from vlmend.errors import VlmendError
from vlmend.printing import err_console

__all__ = ["app", "main"]

VERBS = (auditing, labelling, mending, attacking, redteaming, datas, looking, shipping, serving, phantoms)
"""The modules whose verbs `app` holds."""

STOPPED = 130


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"vlmend {version('vlmend')}")
        raise typer.Exit


@app.callback()
def start(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version and leave.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="With any verb, in any place: print the traceback of an error, too.")
    ] = False,
) -> None:
    """Audit vision-language models, mend them at inference time, and prove the mend."""


def main() -> None:
    """Run the command line; every error is one message, no traceback unless `--debug` is given."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    try:
        code = app(args=[a for a in arguments if a != "--debug"], prog_name="vlmend", standalone_mode=False)
        if code == STOPPED:  # typer's own answer to Ctrl-C
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except VlmendError as problem:
        _fail(f"error[{problem.code}] {problem.message}\n  {problem.hint}", problem.exit_code, debug)
    except TyperException as problem:
        cast(Any, problem).show()
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        _fail("stopped. Run the same command again to go on: finished replies are kept.", STOPPED, False)
    except Exception as problem:  # a bug of ours, or a library's: say so in one line
        hint = "This is not your mistake. Run it again with --debug and report what it prints."
        if isinstance(problem, ImportError) and find_spec("torchvision"):
            hint = "A torchvision that does not fit the installed torch does this. Run: pip uninstall torchvision"
        _fail(f"error[internal] {type(problem).__name__}: {problem}\n  {hint}", 3, debug)


def _fail(message: str, code: int, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    err_console.print(message, highlight=False, markup=False, soft_wrap=True)
    sys.exit(code)
