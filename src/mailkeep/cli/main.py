"""`mailkeep`: finds the command, runs it, and turns what went wrong into one line and an exit code.

Each command lives in a module of its own that is imported only when it is called: `mailkeep user list` loads no
asyncio, no TLS and no progress bar.
"""

import importlib
import os
import sys
import traceback
from typing import Any, Final

import click

from mailkeep import __version__
from mailkeep.cli.output import INTERRUPTED, USAGE, Out, exit_code, shown, told
from mailkeep.errors import MailkeepError

# name → (module, object); the order is that of the help.
COMMANDS: Final = {
    "serve": ("serve", "serve"),
    "user": ("user", "user"),
    "remote": ("remote", "remote"),
    "push": ("push", "push"),
    "migrate": ("push", "migrate"),
    "import": ("imports", "import_mail"),
    "export": ("export", "export"),
    "pull": ("pull", "pull"),
    "sync": ("sync", "sync"),
    "bulk": ("bulk", "bulk"),
    "status": ("pull", "status"),
    "verify": ("care", "verify"),
    "repair": ("care", "repair"),
    "gc": ("care", "gc"),
    "undelete": ("care", "undelete"),
    "doctor": ("doctor", "doctor"),
}


class Commands(click.Group):
    """A group that knows its commands' names without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        found = getattr(importlib.import_module(f"mailkeep.cli.{module}"), name)
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        import difflib

        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean `mailkeep {near[0]}`?" if near else "see `mailkeep --help`"
            raise click.UsageError(f"there is no command {args[0]}; {hint}", ctx)
        return super().resolve_command(ctx, args)


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="mailkeep", message="%(prog)s %(version)s")
def cli() -> None:
    """One mail store with every door: an IMAP, POP3 and LMTP server and the tools around it.

    \b
    Start here:  mailkeep serve --demo
    """


def command_tree() -> click.Group:
    """All commands, loaded: for shell completion and for the test that compares them with the documentation."""
    loaded = {name: found for name in COMMANDS if (found := cli.get_command(click.Context(cli), name)) is not None}
    return click.Group("mailkeep", commands=loaded, params=cli.params)


def run(arguments: list[str]) -> int:
    """One command; the exit code."""
    debug = "--debug" in arguments
    as_json = "--json" in arguments
    try:
        result = cli.main(arguments, prog_name="mailkeep", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USAGE
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "mailkeep"
        text = error.format_message()
        hint = "" if "`mailkeep" in text else f" See `{where} --help`."
        return _failed(f"{text}{hint}", USAGE, as_json)
    except (click.Abort, KeyboardInterrupt):
        return _failed("stopped.", INTERRUPTED, as_json)
    except click.ClickException as error:
        return _failed(error.format_message(), USAGE, as_json)
    except BrokenPipeError:
        # Who read our output has gone (`mailkeep … | head`); the interpreter must not complain at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MailkeepError as error:
        if debug:
            traceback.print_exc()
        return _failed(told(error), exit_code(error), as_json)
    except Exception as error:
        if debug:
            raise
        return _failed(
            f"a fault in Mailkeep: {_brief(error)}. Run again with --debug and report what it says.", 70, as_json
        )


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0][:200]}" if str(error) else type(error).__name__


def _failed(text: str, code: int, as_json: bool) -> int:
    line: Any = " ".join(text.split())
    click.echo(f"mailkeep: {shown(line)}", err=True)
    if as_json:
        Out(json=True, quiet=True).facts({"error": line, "code": code})
    return code


def main() -> None:
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
