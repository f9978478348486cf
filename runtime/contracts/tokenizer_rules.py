"""What a tokenizer.json's rules say, and the changes to them that edgeprefix needs.

A tokenizer's parts give their own JSON away (`__getstate__`), so a vocabulary of 200,000 entries is
written out only where a rule has to be changed.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from tokenizers import Tokenizer

from edgeprefix.runtime.errors import BundleError

logger = logging.getLogger(__name__)

_PARTS = {"Sequence": ("normalizers", "pretokenizers", "decoders")}
_PER_TOKEN = ("Metaspace", "WordPiece", "BPEDecoder", "ByteFallback", "Replace", "Strip")
_FUSING = ("ByteLevel", "Fuse")


def decodes_in_order(tokenizer: Tokenizer) -> bool:
    """Whether the text of tokens begins with the text of the first of them, whatever follows, and
    only neighbours matter.

    So it is where each token is decoded by itself and the pieces are joined; what is done to the
    joined text must then look at single characters or its two ends. CTC, for one, is not so.
    """
    fused = False
    for rule in _rules(tokenizer.decoder):
        if not fused and rule["type"] in _PER_TOKEN:
            continue
        if rule["type"] in _FUSING:
            fused = True
        elif rule["type"] != "Strip" and not _replaces_characters(rule):
            return False
    return True


def within_vocabulary(tokenizer: Tokenizer, vocabulary: int) -> Tokenizer:
    """The tokenizer without added tokens that a base of `vocabulary` ids does not know; their text
    is then encoded as any other. The same object where there are none.

    Raises BundleError when the vocabulary itself is larger, or a token that is put around every
    text is beyond it.
    """
    beyond = {
        token: added.content
        for token, added in tokenizer.get_added_tokens_decoder().items()
        if token >= vocabulary
    }
    # By the largest id, not by their number: a vocabulary may have gaps
    size = max(tokenizer.get_vocab(with_added_tokens=False).values(), default=-1) + 1
    if size > vocabulary or not beyond.keys().isdisjoint(tokenizer.encode("").ids):
        raise BundleError(
            f"the tokenizer knows {max(size, *beyond, 0):,} ids, the base {vocabulary:,}: they do "
            "not belong together; export the bundle again, from a checkpoint with its own tokenizer"
        )
    if not beyond:
        return tokenizer
    logger.warning(
        "the base knows %s ids and none for %d added tokens of its tokenizer, such as %s: their "
        "text is encoded like any other",
        f"{vocabulary:,}", len(beyond), next(iter(beyond.values())),
    )  # fmt: skip
    rules = json.loads(tokenizer.to_str())
    rules["added_tokens"] = [entry for entry in rules["added_tokens"] if entry["id"] < vocabulary]
    return Tokenizer.from_str(json.dumps(rules))


def without_dummy_space(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer for text that goes on within another: nothing is put before it, and its own
    leading spaces stay. The same object where the rules do neither.
    """
    changed = {
        name: _continuing(rule)
        for name in ("normalizer", "pre_tokenizer")
        if (rule := _rule(getattr(tokenizer, name))) is not None and _continuing(rule) != rule
    }
    return (
        Tokenizer.from_str(json.dumps(json.loads(tokenizer.to_str()) | changed))
        if changed
        else tokenizer
    )


def _continuing(rule: dict[str, Any]) -> dict[str, Any] | None:
    """The rule without what it does to the beginning of a text; None when that is all it does."""
    kind = rule["type"]
    if kind == "Prepend":
        return None
    if kind == "Metaspace":
        return rule | {"prepend_scheme": "never"}
    if kind == "ByteLevel":
        return rule | {"add_prefix_space": False}
    if kind == "Strip":
        return rule | {"strip_left": False}
    parts = next((name for name in _PARTS.get(kind, ()) if name in rule), None)
    if parts is None:
        return rule
    kept = [part for part in map(_continuing, rule[parts]) if part is not None]
    return rule | {parts: kept}


def _replaces_characters(rule: dict[str, Any]) -> bool:
    return rule["type"] == "Replace" and len(rule["pattern"].get("String", "")) == 1


def _rules(part: Any) -> list[dict[str, Any]]:
    """A part's rules one after another; none of a part that is not there."""
    rule = _rule(part)
    return [] if rule is None else _flat(rule)


def _flat(rule: dict[str, Any]) -> list[dict[str, Any]]:
    if rule["type"] != "Sequence":
        return [rule]
    return [one for part in rule.get("decoders", ()) for one in _flat(part)]


def _rule(part: Any) -> dict[str, Any] | None:
    rule: dict[str, Any] | None = None if part is None else json.loads(part.__getstate__())
    return rule
