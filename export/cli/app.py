"""The commands of this package. Errors go up to the root, which prints them."""

from __future__ import annotations

import typer

from edgeprefix.export.cli.adopt import adopt_command
from edgeprefix.export.cli.decoder import decoder_command
from edgeprefix.export.cli.prefix import prefix_command
from edgeprefix.export.cli.verify import verify_command

export_app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Write a base as a bundle, or a trained run as a prefix file.",
)
export_app.command("decoder")(decoder_command)
export_app.command("adopt")(adopt_command)
export_app.command("prefix")(prefix_command)

verify_app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, help="Compare a bundle with torch."
)
verify_app.command()(verify_command)
