"""`edgeprefix keygen` and `edgeprefix sign`: keys of one's own, and files signed with them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprefix.runtime.contracts.files import write_atomic
from edgeprefix.runtime.contracts.prefix_file import read_prefix_bytes, sign_prefix
from edgeprefix.runtime.contracts.signature import SigningKey, write_key_pair
from edgeprefix.runtime.errors import OutputError

sign_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
keygen_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@keygen_app.command(name="keygen")
def keygen(
    out: Annotated[
        Path, typer.Option("--out", metavar="NAME", help="Writes NAME.key and NAME.pub.")
    ],
) -> None:
    """Make a key pair that signs prefix files (Ed25519, PEM). Keep NAME.key to yourself; machines
    that run prefixes get NAME.pub.
    """
    private, public = write_key_pair(out)
    typer.echo(f"{private}: the private key, not protected by a password; it signs")
    typer.echo(f"{public}: the public key, for --require-signature and Engine.load(trusted_keys=…)")


@sign_app.command(name="sign")
def sign(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A prefix file.")],
    key: Annotated[
        Path, typer.Option("--key", metavar="KEY", help="Private key that `keygen` wrote.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Default: FILE itself.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing --out.")] = False,
) -> None:
    """Sign a prefix file: all of its tensors and its header. A signature that is there already is
    replaced.
    """
    target = file if out is None else out
    if out is not None and out.exists() and not force:
        raise OutputError(
            f"{out} exists already; choose another --out, or pass --force to replace it"
        )
    signing = SigningKey.load(key)
    write_atomic(target, sign_prefix(read_prefix_bytes(file), signing))
    typer.echo(f"{target}: signed with key {signing.public_hex}")
