"""The `antiphon` command: names of all subcommands; each is imported when it is used."""

from __future__ import annotations

import sys

from cyclopts import App

from infra.local.errors import StackError

app = App(name="antiphon", help="Run and operate an Antiphon stack on this machine.")
app.command("infra.cli.up:up", name="up", help="Start the stack, in the foreground or detached.")
app.command("infra.cli.control:down", name="down", help="Stop the running stack.")
app.command(
    "infra.cli.control:status",
    name="status",
    help="Show every part with its state, port and memory.",
)
app.command("infra.cli.logs:logs", name="logs", help="Show or follow what the parts wrote.")
app.command(
    "infra.cli.demo:demo",
    name="demo",
    help="Ask a real model two questions through the whole system.",
)

topics = App(name="topics", help="Compare Kafka's topics with the registry, or make them match.")
topics.command(
    "infra.cli.topics:apply", name="apply", help="Make Kafka's topics match the registry."
)
topics.command("infra.cli.topics:diff", name="diff", help="Show what `apply` would change.")
app.command(topics)

keys = App(name="keys", help="Create, list, rotate and revoke API keys of the running stack.")
keys.command("infra.cli.keys:create", name="create", help="Create a key and print it once.")
keys.command("infra.cli.keys:list_keys", name="list", help="List all keys.")
keys.command("infra.cli.keys:rotate", name="rotate", help="Give a key a new secret.")
keys.command("infra.cli.keys:revoke", name="revoke", help="Revoke a key by its id.")
app.command(keys)

dlq = App(name="dlq", help="Look at messages that could not be handled; send them again or not.")
dlq.command("infra.cli.dead_letters:list_waiting", name="list", help="Count them by topic.")
dlq.command("infra.cli.dead_letters:show_letters", name="show", help="Show them with reasons.")
dlq.command("infra.cli.dead_letters:retry", name="retry", help="Send them to their topic again.")
dlq.command("infra.cli.dead_letters:drop", name="drop", help="Let them go.")
app.command(dlq)


def main() -> None:
    """Run the command line; a known problem is one sentence on stderr and exit code 1."""
    try:
        app()
    except StackError as error:
        print(f"antiphon: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
