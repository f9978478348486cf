"""What is fuzzed: each target takes any bytes and checks what its reader promises. No fuzzer is
imported here, so that the corpus runs in the ordinary tests too.
"""

from __future__ import annotations

import functools
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from prefix_files import content_hash, draft, written

from edgeprefix.cli.rows import read_rows
from edgeprefix.runtime.contracts.manifest import MANIFEST_FILE, Manifest
from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.runtime.contracts.prompt import render_prompt, template_fields
from edgeprefix.runtime.contracts.signature import SIGNATURE_KEY, TrustedKeys
from edgeprefix.runtime.errors import (
    BundleError,
    DataError,
    PrefixFileError,
    RequestError,
    SignatureError,
    TemplateError,
)
from edgeprefix.runtime.tasks.chat import render_chat

_MARKS = re.compile(rb"\xf3\xb0\x80[\x80\x81]")  # the characters that chat.py marks with
_NOBODY = TrustedKeys(frozenset([bytes(32)]))


def fuzz_manifest(data: bytes) -> None:
    """BundleError, or a manifest that is the same when it is written and read again."""
    place = Path(_scratch().name)
    (place / MANIFEST_FILE).write_bytes(data)
    try:
        manifest = Manifest.load(place)
    except BundleError:
        return
    manifest.save(place)
    assert Manifest.load(place) == manifest
    try:
        manifest.check_files(place, hashes=True)
    except BundleError:
        return


def fuzz_prefix_file(data: bytes) -> None:
    """PrefixFileError, or a prefix that is the same when it is written and read again."""
    _read_prefix(data)


def fuzz_prefix_header(data: bytes) -> None:
    """The same for any header in a file whose hash fits, which random bytes never reach."""
    made = draft(_Fixed())
    try:
        header = json.loads(data)
        header["content_sha256"] = content_hash(header, made.tensors)
    except (ValueError, TypeError, RecursionError):
        made.metadata["edgeprefix"] = data.decode("utf-8", "surrogateescape")
    else:
        made.metadata["edgeprefix"] = json.dumps(header)
    _read_prefix(written(made))


def fuzz_rows(data: bytes) -> None:
    """DataError, or rows whose fields are whole texts and whose content can be written again."""
    path = Path(_scratch().name, "rows.csv" if data[:1] == b"c" else "rows.jsonl")
    path.write_bytes(data[1:])
    try:
        rows = read_rows(path, required=(), structured=["messages"])
    except DataError:
        return
    for row in rows:
        assert all((key + value).encode() is not None for key, value in row.fields.items())
        assert row.fields.keys() <= row.content.keys()
        assert json.loads(json.dumps(row.content)) == row.content


def fuzz_template(data: bytes) -> None:
    """TemplateError, or a text made of the template's own characters and the row's fields."""
    template = data.decode("utf-8", "surrogateescape" if data[:1] == b"s" else "replace")
    try:
        fields = template_fields(template)
        text = render_prompt(template, dict.fromkeys(fields, "\x00"))
    except TemplateError:
        return
    assert all(field.isidentifier() for field in fields)
    assert text.count("\0") >= len(fields)
    assert len(text) <= len(template)


def fuzz_chat(data: bytes) -> None:
    """RequestError or TemplateError, or a text, whatever it costs (chat_limits.py)."""
    if _MARKS.search(data):
        return
    messages = [{"role": "system", "content": "<s>a"}, {"role": "user", "content": "b"}]
    try:
        text = render_chat(data.decode("utf-8", "replace"), messages, control_tokens=["<s>"])
    except (RequestError, TemplateError):
        return
    assert "\U000f0000" not in str(text), "a mark was left in the text"


def fuzz_signature(data: bytes) -> None:
    """SignatureError whatever the entry holds: nobody has the key of 32 zeros."""
    try:
        _NOBODY.require(data.decode("utf-8", "replace"), "0" * 64)
    except SignatureError:
        return
    raise AssertionError(f"{SIGNATURE_KEY} was accepted")


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    """One folder of a process, removed when Python ends; fuzz.py removes that of a fuzzer."""
    return tempfile.TemporaryDirectory(prefix="edgeprefix-fuzz-")


def _read_prefix(data: bytes) -> None:
    try:
        prefix = Prefix.from_bytes(data)
    except PrefixFileError:
        return
    again = Prefix.from_bytes(prefix.to_bytes())
    assert (again.name, again.base, again.pack) == (prefix.name, prefix.base, prefix.pack)


class _Fixed:
    """A `Random` that always takes the first: the honest file is one and the same."""

    def choice(self, values: list[str]) -> str:
        return values[0]

    def randrange(self, start: int, stop: int) -> int:
        return start


TARGETS: dict[str, Callable[[bytes], None]] = {
    "manifest": fuzz_manifest,
    "prefix_file": fuzz_prefix_file,
    "prefix_header": fuzz_prefix_header,
    "rows": fuzz_rows,
    "template": fuzz_template,
    "chat": fuzz_chat,
    "signature": fuzz_signature,
}
