"""The ``kilograd`` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point: the commands, or what to install for them."""
    try:
        import click
        import rich
    except ImportError as e:
        sys.exit(f"the kilograd command needs {e.name}: pip install 'kilograd[cli]'")
    from kilograd.cli.commands import cli

    cli()
