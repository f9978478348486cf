"""What is no GGUF file, or a damaged one: one error of ours each, whatever the bytes."""

from __future__ import annotations

import contextlib
import random
import shutil
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf_files import MODELS, write_gguf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeprefix.base import load_base
from edgeprefix.base.checkpoint import find_checkpoint
from edgeprefix.base.gguf.reader import GgufFile, is_gguf
from edgeprefix.runtime.errors import CheckpointError, EdgePrefixError, UnsupportedBaseError


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    write_gguf(MODELS["llama"](), path, kind="Q8_0")
    return path


def changed(whole: Path, folder: Path, **facts: Any) -> Path:
    """The same model with other facts."""
    path = folder / "changed.gguf"
    write_gguf(MODELS["llama"](), path, kind="Q8_0", **facts)
    return path


def test_facts_and_tensors_are_those_of_the_package_s_own_reader(whole: Path) -> None:
    theirs, ours = gguf.GGUFReader(whole), GgufFile.open(whole)
    own = {name: field for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert set(ours.facts) == set(own)
    for key, field in own.items():
        value = ours.facts[key]
        assert (value.tolist() if isinstance(value, np.ndarray) else value) == field.contents()
    assert set(ours.tensors) == {tensor.name for tensor in theirs.tensors}
    for tensor in theirs.tensors:
        found = ours.tensors[tensor.name]
        assert list(found.shape) == tensor.shape.tolist()[::-1]
        assert found.data.tobytes() == tensor.data.tobytes()
        found.give_back()
        assert found.data.tobytes() == tensor.data.tobytes()


def test_a_file_is_known_by_its_name_or_its_first_bytes(whole: Path, tmp_path: Path) -> None:
    blob = shutil.copy(whole, tmp_path / "b0b")  # the hub's cache names files by their hashes
    assert is_gguf(Path(blob))
    assert not is_gguf(tmp_path)
    (tmp_path / "x.txt").write_text("GGU")
    assert not is_gguf(tmp_path / "x.txt")


def cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"", r"cannot be read: .*; download or copy it again"),
        (lambda data: b"GGUF", r"is truncated: it ends within its version"),
        (lambda data: b"PK\3\4" + data[4:], r"is no GGUF file \(it begins with b'PK"),
        (lambda data: data[:3000], r"is truncated: it ends within |is damaged"),
        (lambda data: cut(data, 0.9), r"is truncated: [\d,]+ bytes of tensor \S+ are missing"),
        (lambda data: data[:4] + struct.pack("<I", 1) + data[8:], r"is GGUF version 1; versions 2"),
        (lambda data: data[:4] + struct.pack(">I", 3) + data[8:], r"for big-endian machines"),
        (lambda data: data[:8] + struct.pack("<Q", 0) + data[16:], r"holds no tensors"),
        (lambda data: data[:16] + struct.pack("<Q", 2**60) + data[24:], r"is damaged|truncated"),
    ],
    ids=["empty", "magic", "zip", "facts cut", "data cut", "old", "big-endian", "none", "many"],
)
def test_what_is_no_whole_file(whole: Path, tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(change(whole.read_bytes()))
    with pytest.raises(CheckpointError, match=message):
        load_base(path)


@pytest.mark.parametrize(
    ("facts", "kind", "message"),
    [
        ({"general.type": "adapter"}, UnsupportedBaseError, r"is no model but of the type adapter"),
        ({"general.type": "mmproj"}, UnsupportedBaseError, r"is no model but of the type mmproj"),
        ({"llama.expert_count": 8}, UnsupportedBaseError, r"llama\.expert_count is 8, and such a"),
        ({"llama.new.kind": 1}, UnsupportedBaseError, r"states llama\.new\.kind, which is not"),
        ({"llama.block_count": None}, CheckpointError, r"lacks llama\.block_count"),
        ({"llama.block_count": "x"}, CheckpointError, r"is 'x', expected a whole number"),
        ({"llama.block_count": 3}, CheckpointError, r"states 3 layers and holds tensors of 2"),
        ({"llama.block_count": 1}, CheckpointError, r"states 1 layers and holds tensors of 2"),
        ({"llama.feed_forward_length": 128}, CheckpointError, r"blk\.0\.ffn_gate\.weight has the"),
        ({"llama.rope.scaling.type": "su"}, UnsupportedBaseError, r"rope\.scaling\.type is 'su'"),
        ({"llama.attention.head_count": [4, 2]}, CheckpointError, r"is '\[4, 2\]', expected a"),
        ({"llama.attention.head_count": 0}, CheckpointError, r"is '0', expected a whole"),
        ({"general.alignment": 3}, CheckpointError, r"general\.alignment is 3, expected a power"),
        ({"tokenizer.ggml.model": "bert"}, CheckpointError, r"of the kind 'bert', and gpt2, llama"),
        ({"tokenizer.ggml.pre": "new"}, CheckpointError, r"\(tokenizer\.ggml\.pre\) is 'new'"),
        ({"tokenizer.ggml.pre": None}, CheckpointError, r"\(tokenizer\.ggml\.pre\) is not stated"),
        ({"tokenizer.ggml.merges": ["a"]}, CheckpointError, r"merges is no list of pairs"),
        ({"tokenizer.ggml.merges": ["q zzz"]}, CheckpointError, r"its tokenizer is damaged: "),
        ({"tokenizer.ggml.token_type": [1]}, CheckpointError, r"token_type is no list of 384"),
        ({"tokenizer.ggml.tokens": [1, 2]}, CheckpointError, r"tokens is no list of texts"),
        ({"tokenizer.chat_template": 3}, CheckpointError, r"tokenizer\.chat_template is no text"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_base(
    whole: Path, tmp_path: Path, facts: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        load_base(changed(whole, tmp_path, **facts))


def test_an_architecture_that_is_not_read(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "m.gguf"), "mamba")
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(
        UnsupportedBaseError,
        match=r"is of the architecture mamba, and GGUF files are read of gemma,",
    ):
        load_base(tmp_path / "m.gguf")


def test_a_model_in_several_files(whole: Path, tmp_path: Path) -> None:
    model = MODELS["qwen2"]()
    write_gguf(model, tmp_path / "one.gguf")
    write_in_parts(tmp_path / "one.gguf", tmp_path / "m", count=3)
    one = load_base(tmp_path / "one.gguf")
    for number in (1, 3):  # whichever is given
        parts = load_base(tmp_path / f"m-0000{number}-of-00003.gguf")
        assert parts.identity.sha256 == one.identity.sha256
        found, expected = parts.model.state_dict(), one.model.state_dict()
        assert all((found[name] == expected[name]).all() for name in expected)
    (tmp_path / "m-00001-of-00003.gguf").rename(tmp_path / "renamed.gguf")
    with pytest.raises(CheckpointError, match=r"is the first of 3 files of a model, and its name"):
        load_base(tmp_path / "renamed.gguf")
    with pytest.raises(CheckpointError, match=r"and m-00001-of-00003\.gguf is not beside it"):
        load_base(tmp_path / "m-00002-of-00003.gguf")


def write_in_parts(path: Path, stem: Path, *, count: int) -> None:
    """As llama-gguf-split does it: the facts in the first file, tensors in all."""
    file = gguf.GGUFReader(path)
    for number in range(count):
        target = stem.with_name(f"{stem.name}-{number + 1:05d}-of-{count:05d}.gguf")
        writer = gguf.GGUFWriter(str(target), "qwen2")
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", count)
        for key, field in file.fields.items() if number == 0 else ():
            if key.startswith("GGUF.") or key == "general.architecture":
                continue
            kinds = field.types
            writer.add_key_value(
                key, field.contents(), kinds[0], kinds[1] if len(kinds) > 1 else None
            )
        for tensor in file.tensors[number::count]:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


@given(seed=st.integers(0, 2**32), count=st.integers(1, 12), early=st.booleans())
@settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damage_gives_an_error_of_ours_or_a_base(
    whole: Path, tmp_path: Path, seed: int, count: int, early: bool
) -> None:
    """Bytes of the facts and tables are changed; what the numbers are nobody can tell."""
    generator, data = random.Random(seed), bytearray(whole.read_bytes())
    end = 2000 if early else 60_000
    for _ in range(count):
        data[generator.randrange(4, end)] = generator.choice([0, 1, 8, 9, 127, 255])
    path = tmp_path / "damaged.gguf"
    path.write_bytes(data)
    source = find_checkpoint(path)
    for ask in (
        lambda: source.load_model(source.config(), hold="fp32"),
        source.tokenizer,
        source.identity,
        source.special_tokens,
        source.chat_template,
        source.generation_settings,
        lambda: source.end_ids(None, None, vocabulary=384),
    ):
        with contextlib.suppress(EdgePrefixError):
            ask()


def test_tensors_that_do_not_belong_together(whole: Path, tmp_path: Path) -> None:
    """Under another name: one is missing, or one has no place."""
    for old, new, message in (
        (b"blk.1.ffn_up.weight", b"blk.1.ffn_ux.weight", r"lacks 1 of the .*up_proj\.weight"),
        (b"output_norm.weight", b"output_morn.weight", r"lacks 1 of the .*model\.norm\.weight"),
    ):
        (tmp_path / "model.gguf").write_bytes(whole.read_bytes().replace(old, new))
        with pytest.raises(CheckpointError, match=message):
            load_base(tmp_path / "model.gguf")
    write_gguf(MODELS["llama, untied, biases"](), tmp_path / "biases.gguf")
    data = (
        (tmp_path / "biases.gguf").read_bytes().replace(b"blk.0.attn_q.bias", b"blk.0.attn_x.bias")
    )
    (tmp_path / "biases.gguf").write_bytes(
        data.replace(b"blk.0.ffn_down.bias", b"blk.0.ffn_dowx.bias")
    )
    with pytest.raises(
        CheckpointError, match=r"tensors that a llama has no place for, such as blk"
    ):
        load_base(tmp_path / "biases.gguf")


def test_a_package_older_than_the_architecture(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = {key: name for key, name in gguf.MODEL_ARCH_NAMES.items() if name != "llama"}
    monkeypatch.setattr(gguf, "MODEL_ARCH_NAMES", older)
    with pytest.raises(
        CheckpointError, match=r"llama, which gguf \S+ does not know; type: pip inst"
    ):
        load_base(whole)
