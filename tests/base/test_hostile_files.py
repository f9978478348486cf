"""Small files of a checkpoint, whatever they hold: an answer, or an error of ours that names the
file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from edgeprefix.base.chat_template import read_chat_template
from edgeprefix.base.special_ids import read_end_ids
from edgeprefix.base.tokenizer import special_tokens
from edgeprefix.base.weight_files import weight_files
from edgeprefix.runtime.errors import CheckpointError
from tiny import VOCABULARY, tiny_tokenizer

TOKENIZER: Tokenizer = tiny_tokenizer().backend_tokenizer

anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 999) | st.floats(allow_nan=True) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
"""Any JSON value; texts may hold half a surrogate pair, as \\ud83d in a file does."""
halves = st.text(st.characters(categories=["Cs", "L"]), max_size=3)
ids = st.integers(-3, VOCABULARY + 3)
end_ids = ids | st.lists(ids, max_size=4) | st.none()


class NoDefaults:
    """The configuration of a type that names no end token of its own."""


@contextmanager
def written(**files: Any) -> Iterator[Path]:
    """A folder with these JSON files, named without their suffix."""
    with TemporaryDirectory() as folder:
        for name, value in files.items():
            Path(folder, f"{name}.json").write_text(json.dumps(value))
        yield Path(folder)


@given(generation=end_ids, config=end_ids, token=st.sampled_from(["!", '"', None, "no token"]))
@settings(deadline=None, max_examples=60)
def test_every_end_counts_once_in_the_order_of_the_places(
    generation: Any, config: Any, token: str | None
) -> None:
    own = None if token is None else TOKENIZER.token_to_id(token)
    stated = [
        token
        for value in (generation, config, own)
        for token in (value if isinstance(value, list) else [value])
        if token is not None and 0 <= token < VOCABULARY
    ]
    with written(
        generation_config={"eos_token_id": generation},
        config={"eos_token_id": config},
        tokenizer_config={"eos_token": token},
    ) as folder:
        found = read_end_ids(folder, NoDefaults(), TOKENIZER, vocabulary=VOCABULARY)
    assert list(found) == list(dict.fromkeys(stated))


@example(generation={}, end=0, token="\ud83d", template=None, table={})
@example(generation={}, end=0, token="a", template="\ud83d", table={})
@given(
    generation=anything,
    end=anything,
    token=anything | halves,
    template=anything | halves,
    table=anything | st.dictionaries(st.text(), st.text() | halves, max_size=2),
)
@settings(deadline=None, max_examples=150)
def test_no_foreign_error_comes_out_of_them(
    generation: Any, end: Any, token: Any, template: Any, table: Any
) -> None:
    said = []
    with written(
        generation_config=generation,
        config={"eos_token_id": end, "text_config": generation},
        tokenizer_config={"eos_token": token, "chat_template": template},
        special_tokens_map=generation,
    ) as folder:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
        for ask in (
            lambda: read_end_ids(folder, NoDefaults(), TOKENIZER, vocabulary=VOCABULARY),
            lambda: read_chat_template(folder),
            lambda: special_tokens(folder),
            lambda: weight_files(folder),
        ):
            try:
                ask()
            except CheckpointError as error:
                said.append(str(error))
    assert all(str(folder) in text for text in said)
