"""`edgeprefix inspect`: what is in a prefix file or a bundle."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from edgeprefix.cli.common import TrustedKeyFiles
from edgeprefix.cli.terminal import print_json, printable, terminal
from edgeprefix.runtime.contracts.manifest import MANIFEST_FILE, Manifest
from edgeprefix.runtime.contracts.prefix_file import Prefix, read_prefix_bytes, read_signature
from edgeprefix.runtime.contracts.signature import TrustedKeys
from edgeprefix.runtime.errors import FileFormatError

inspect_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@inspect_app.command(name="inspect")
def inspect(
    path: Annotated[
        Path, typer.Argument(help="A prefix file or a bundle folder.", metavar="FILE|BUNDLE")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Bundle: compare every file's SHA-256 with the manifest."),
    ] = False,
    require_signature: TrustedKeyFiles = None,
) -> None:
    """Show what is in a prefix file or a bundle. A file is verified as a whole before anything of
    it is shown.
    """
    if path.is_dir():
        facts = describe_bundle(path, check=check)
    elif path.name == MANIFEST_FILE:
        facts = describe_bundle(path.parent, check=check)
    elif path.is_file():
        keys = TrustedKeys.load(require_signature) if require_signature else None
        facts = describe_prefix(path, trusted_keys=keys)
    else:
        raise FileFormatError(f"{path} does not exist; give a prefix file or a bundle folder")
    if as_json:
        print_json(facts, indent=2)
    else:
        _print(path, facts)


def describe_prefix(path: Path, *, trusted_keys: TrustedKeys | None = None) -> dict[str, Any]:
    """Facts of a prefix file as JSON values. Raises PrefixFileError, SignatureError."""
    data = read_prefix_bytes(path)
    prefix = Prefix.from_bytes(data, source=str(path), trusted_keys=trusted_keys)
    heads = sorted({(layer.key.shape[0], layer.key.shape[2]) for layer in prefix.layers})
    return {
        "kind": "prefix",
        "task": prefix.name,
        "length": prefix.length,
        "layers": len(prefix.layers),
        "heads_and_size": [list(pair) for pair in heads],
        "dtype": prefix.dtype,
        "signature": _signature(read_signature(data), trusted_keys),
        "file_bytes": len(data),
        "memory_bytes": prefix.nbytes,
        "base": prefix.base.to_json(),
        **prefix.pack.to_json(),
    }


def _signature(text: str | None, trusted_keys: TrustedKeys | None) -> str:
    if trusted_keys is not None:
        return "by a trusted key"  # from_bytes has seen to it
    return "none" if text is None else "not checked; --require-signature KEYS checks it"


def describe_bundle(folder: Path, *, check: bool = False) -> dict[str, Any]:
    """Facts of a bundle as JSON values; with `check` its files' hashes are compared. Raises
    BundleError.
    """
    manifest = Manifest.load(folder)
    manifest.check_files(folder, hashes=check)
    facts: dict[str, Any] = {"kind": "bundle"} | dataclasses.asdict(manifest)
    return facts | {
        "base": manifest.base.to_json(),
        "bytes": sum(record.bytes for record in manifest.files.values()),
    }


def _print(path: Path, facts: dict[str, Any]) -> None:
    table = Table(
        title=printable(f"{facts['kind']} {path}"), show_header=False, title_justify="left"
    )
    for key, value in facts.items():
        if key != "kind" and value not in (None, "", [], {}, ()):
            table.add_row(printable(key), printable(_shown(key, value)))
    terminal().print(table)


def _shown(key: str, value: Any) -> str:
    if key == "base":
        return f"{value['name']} ({value['sha256'][:12]})"
    if key == "layers" and isinstance(value, list | tuple):
        shapes = [f"{layer['kv_heads']} heads x {layer['head_size']}" for layer in value]
        return f"{len(value)}: " + ", ".join(dict.fromkeys(shapes))
    if key == "files":
        return "\n".join(f"{name}  {record['bytes']:,} bytes" for name, record in value.items())
    if key == "parity":
        return _parity(value)
    if isinstance(value, dict):
        return "\n".join(f"{name}: {entry}" for name, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(repr, value))
    return (
        f"{value:,}" if isinstance(value, int) else repr(value) if key == "prompt" else str(value)
    )


def _parity(report: Mapping[str, Any]) -> str:
    """The comparison with torch in a few lines: the whole, then each way of feeding the graph."""
    lines = [f"{'passed' if report.get('passed') else 'FAILED'}: {_differences(report)}"]
    lines += [f"  {case.get('name')}: {_differences(case)}" for case in report.get("cases", ())]
    lines += _on_text(report.get("text"))
    return "\n".join(lines)


def _on_text(text: Mapping[str, Any] | None) -> list[str]:
    """Perplexity beside torch's; bundles of before have none."""
    if not text:
        return []
    source = "drawn from the base" if text["sampled"] else "of a given text"
    return [
        f"  perplexity {text['perplexity']:.4g}, torch {text['perplexity_torch']:.4g}, on "
        f"{text['tokens']:,} tokens {source}: {_differences(text['compared'])}"
    ]


def _differences(numbers: Mapping[str, Any]) -> str:
    kinds = {"max_abs": "largest difference {:.1e}", "kl": "KL {:.1e}", "top1": "top-1 {:.1%}"}
    return ", ".join(form.format(numbers[name]) for name, form in kinds.items() if name in numbers)
