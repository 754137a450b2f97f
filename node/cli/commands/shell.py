"""`fofoca version` and `completion`."""

from __future__ import annotations

import click


@click.command(short_help="Print the version.")
def version() -> None:
    """Print the version."""
    from node import versions

    print(f"fofoca {versions.version()}")


@click.command(short_help="Print a shell's completion script.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a shell's completion script: put `eval "$(fofoca completion bash)"` into ~/.bashrc."""
    from click.shell_completion import get_completion_class

    from node.cli.program import program

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    print(kind(program, {}, "fofoca", "_FOFOCA_COMPLETE").source())
