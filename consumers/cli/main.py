"""`postbote`: the command line."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import typer

from broker import __version__
from consumers.cli import channels, dead_letters, deliveries, webhooks
from consumers.cli.endings import prepare_streams, tell
from consumers.cli.listen import listen
from consumers.cli.send import send

#: New objects at which the garbage collector looks for cycles among them, and after how many such looks at the
#: older ones, and at all. A look at 10,000 takes 6 ms, in which nothing else is done.
GARBAGE = (10_000, 5, 400)

PROCESSES, TALK, ADMIN = "Processes", "Talk to it", "Administration"

app = typer.Typer(
    name="postbote",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Postbote carries what chatbots say to webhooks: at least once, in order.",
    epilog="Settings are environment variables, POSTBOTE_…; the README lists them. "
    "Everything in one process, without servers: [bold]POSTBOTE_DEMO=1 postbote run[/bold]",
)


@app.command(rich_help_panel=PROCESSES)
def run() -> None:
    """Run everything in one process; embedded where no servers are set."""
    processes().run()


@app.command(rich_help_panel=PROCESSES)
def api() -> None:
    """Run the HTTP API. Any number of these may run."""
    processes().api()


@app.command(rich_help_panel=PROCESSES)
def bot() -> None:
    """Run a bot worker, with the intake. Any number of these may run."""
    processes().bot()


@app.command(rich_help_panel=PROCESSES)
def deliver() -> None:
    """Run a delivery worker. Any number of these may run."""
    processes().deliver()


@app.command(rich_help_panel=PROCESSES)
def migrate() -> None:
    """Bring the database to this version's schema, and declare the queues; once, before the others."""
    processes().migrate()


@app.command(rich_help_panel=PROCESSES)
def health() -> None:
    """Tell whether the process in this container is well; for container engines."""
    from consumers.health import complaint

    why = complaint()
    if why is not None:
        typer.echo(why, err=True)
        raise typer.Exit(1)


@app.command(rich_help_panel=ADMIN)
def version() -> None:
    """Print the version."""
    typer.echo(f"postbote {__version__}")


app.command(rich_help_panel=TALK, epilog='Example: postbote send "show carousel" --wait 2')(send)
app.command(rich_help_panel=TALK, epilog="Example: postbote listen --channel demo --json")(listen)
app.add_typer(channels.app, name="channels", rich_help_panel=ADMIN)
app.add_typer(webhooks.app, name="webhooks", rich_help_panel=ADMIN)
app.add_typer(deliveries.app, name="deliveries", rich_help_panel=ADMIN)
app.add_typer(dead_letters.app, name="dead-letters", rich_help_panel=ADMIN)


def processes() -> ModuleType:
    """Import what the processes are made of."""
    # structlog imports rich where it is installed, to paint tracebacks; ours are plain. Without it each process
    # starts 30 ms sooner, and holds 4 MB less.
    with absent("rich"):
        import structlog  # noqa: F401 - it stays as it is imported first
    from consumers.cli import processes

    return processes


@contextmanager
def absent(name: str) -> Iterator[None]:
    """Let what is imported meanwhile find that a package is not installed, unless it is imported already.

    So Python's own import says: https://docs.python.org/3/reference/import.html#the-module-cache
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


def main() -> None:
    """Enter from the command line. Whatever ends a command is told in one line."""
    # What is imported stays, and what a message makes is freed by its reference counts; cycles are rare. With the
    # usual thresholds the collector looks at it all the same, again and again: a tenth of the time of importing,
    # and a fifth of a delivery's cost.
    gc.set_threshold(*GARBAGE)
    prepare_streams()
    try:
        app()
    except Exception as error:
        tell(error)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
