"""Special tokens count where a template wrote them, and are letters where a user did; ids are those
of the vocabulary; text behind another text gets no space of its own.
"""

from __future__ import annotations

import functools
import logging
import pickle
from collections.abc import Sequence

import pytest
from families import FAMILIES, gemma, llama2, mistral, unigram
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from edgeprefix.runtime.contracts.prompt import render_prompt
from edgeprefix.runtime.contracts.template_text import TemplateText
from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.runtime.errors import BundleError, RequestError

MADE = {name: make() for name, make in FAMILIES.items()}
TOKENIZERS = {name: TextTokenizer(made, end_ids=()) for name, made in MADE.items()}
ALL = pytest.mark.parametrize("name", FAMILIES)


@functools.cache
def special_ids(name: str) -> dict[int, str]:
    added = MADE[name].get_added_tokens_decoder()
    return {token: entry.content for token, entry in added.items() if entry.special}


@functools.cache
def unknown_text(name: str) -> frozenset[int]:
    """The id of text that the vocabulary lacks: special, and yet no control token."""
    return frozenset(
        token for token, text in special_ids(name).items() if text in ("<unk>", "[UNK]")
    )


def control_ids(name: str, ids: Sequence[int]) -> list[int]:
    return [token for token in ids if token in special_ids(name).keys() - unknown_text(name)]


@functools.cache
def hostile_text(name: str) -> st.SearchStrategy[str]:
    """Text with the names of special tokens, whole, in pieces and within one another."""
    names = list(special_ids(name).values())
    halves = [text[:cut] for text in names for cut in (2, len(text) - 1)]
    pieces = [*names, *halves, *(text[1:] for text in names), " ", "\n", "the time", "é"]
    return st.lists(st.sampled_from(pieces), max_size=8).map("".join)


@ALL
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_no_text_of_a_user_becomes_a_control_token(name: str, data: st.DataObject) -> None:
    text, tokenizer = data.draw(hostile_text(name)), TOKENIZERS[name]
    around = control_ids(name, tokenizer.encode_prompt(""))
    assert control_ids(name, tokenizer.encode_prompt(text)) == around
    for encode in (tokenizer.encode_piece, tokenizer.encode_target, tokenizer.encode_behind):
        assert not control_ids(name, encode(text))


@ALL
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_those_of_the_template_count_and_those_of_the_field_do_not(
    name: str, data: st.DataObject
) -> None:
    tokenizer, token = TOKENIZERS[name], max(special_ids(name))
    written = special_ids(name)[token]
    template = f"the {written} time {{input}} {written}"
    ids = tokenizer.encode_piece(render_prompt(template, {"input": data.draw(hostile_text(name))}))
    assert control_ids(name, ids) == [token, token]


@ALL
@given(text=st.text(alphabet="the dog's time.,\né 漢", max_size=30))
@settings(max_examples=100, deadline=None)
def test_ordinary_text_is_encoded_as_the_library_does_it(name: str, text: str) -> None:
    tokenizer, library = TOKENIZERS[name], MADE[name]
    assert tokenizer.encode_prompt(text) == library.encode(text).ids
    assert tokenizer.encode_piece(text) == library.encode(text, add_special_tokens=False).ids
    written = special_ids(name)[max(special_ids(name))]
    filled = render_prompt(f"the {written} time {{input}}!", {"input": text})
    assert tokenizer.encode_prompt(filled) == library.encode(str(filled)).ids


@pytest.mark.parametrize("name", ["byte_level", "llama3", "llama2", "mistral", "gemma"])
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_the_text_itself_stays(name: str, data: st.DataObject) -> None:
    text, tokenizer = data.draw(hostile_text(name)), TOKENIZERS[name]
    read = tokenizer.decode(tokenizer.encode_piece(text), skip_special_tokens=False)
    assert read.lstrip(" ") == text.lstrip(" ")


def test_a_control_token_is_not_made_of_template_and_field() -> None:
    tokenizer = TOKENIZERS["byte_level"]
    for template, field in (
        ("<|im_{input}", "start|>"),
        ("{input}end|>", "<|im_"),
        ("<|im_{input}end|>", ""),
    ):
        text = render_prompt(template, {"input": field})
        assert text in ("<|im_start|>", "<|im_end|>")
        assert not control_ids("byte_level", tokenizer.encode_piece(text))


def test_added_tokens_that_the_template_uses_are_control_tokens_too() -> None:
    tokenizer = TOKENIZERS["byte_level"]
    think = MADE["byte_level"].token_to_id("</think>")
    text = render_prompt("<think>{input}</think>", {"input": "so</think> it is"})
    assert tokenizer.encode_piece(text).count(think) == 1
    # Elsewhere they are entries of the vocabulary like any, as line feeds are everywhere
    assert think in tokenizer.encode_piece("so</think> it is")
    both = MADE["byte_level"].token_to_id("\n\n")
    assert both in tokenizer.encode_piece(render_prompt("a\n\n{input}", {"input": "b\n\nc"}))[-2:]


def test_a_begin_token_is_not_doubled() -> None:
    for name, begin in (("llama2", "<s>"), ("mistral", "<s>"), ("llama3", "<|begin_of_text|>")):
        tokenizer, library = TOKENIZERS[name], MADE[name]
        first = library.token_to_id(begin)
        for text in (f"{begin}the time", TemplateText(f"{begin}the time")):
            ids = tokenizer.encode_prompt(text)
            assert ids[0] == first
            assert ids.count(first) == 1
        # By a user it is text, by the template it is the token
        assert "time" in tokenizer.decode(tokenizer.encode_prompt(f"{begin}the time"))
        assert begin in tokenizer.decode(tokenizer.encode_prompt(f"{begin}the time"))
        assert (
            tokenizer.encode_prompt(TemplateText(f"{begin}the time"))
            == library.encode(f"{begin}the time", add_special_tokens=False).ids
        )
        assert tokenizer.encode_prompt(TemplateText("the", complete=True))[0] != first


@pytest.mark.parametrize("make", [llama2, mistral, unigram, gemma])
def test_text_behind_another_gets_no_space_of_its_own(make: object) -> None:
    library: Tokenizer = make()  # type: ignore[operator]
    tokenizer = TextTokenizer(library, end_ids=())
    tokens = [tokenizer.token_text(token) for token in tokenizer.encode_behind("There")]
    assert not tokens[0].startswith("▁")
    assert "".join(tokens) == "There"
    spaced = [tokenizer.token_text(token) for token in tokenizer.encode_behind(" the time")]
    assert spaced == ["▁the", "▁time"]
    assert (
        tokenizer.encode_piece(" the time")
        == library.encode(" the time", add_special_tokens=False).ids
    )


@given(*[st.text(alphabet="the do\n.", max_size=12)] * 2)
@settings(max_examples=200, deadline=None)
def test_two_texts_are_one_text(before: str, after: str) -> None:
    """A border at which no merge is possible is no border: behind a line feed, which is a byte."""
    for name in ("llama2", "mistral"):
        tokenizer = TOKENIZERS[name]
        whole = tokenizer.encode_prompt(f"{before}.\n{after}")
        assert whole == tokenizer.encode_prompt(f"{before}.\n") + tokenizer.encode_behind(after)


def test_behind_a_templates_special_token_all_is_as_the_library_does_it() -> None:
    for name in ("llama2", "mistral"):
        tokenizer = TOKENIZERS[name]
        first, second = TemplateText("the time.\n"), TemplateText("the </s><s>the dog</s> the")
        whole = tokenizer.encode_piece(TemplateText(first + second))
        assert whole == tokenizer.encode_piece(first) + tokenizer.encode_behind(second)


def test_a_model_that_has_the_tokens_name_as_an_entry() -> None:
    library = unigram()
    tokenizer = TextTokenizer(library, end_ids=())
    library.encode_special_tokens = True
    end = library.token_to_id("</s>")
    assert end in library.encode("the</s> time").ids, "the library itself gives the control token"
    ids = tokenizer.encode_piece("the</s> time")
    assert end not in ids
    assert tokenizer.decode(ids) == "the</s> time"


def test_a_normaliser_does_not_let_one_in() -> None:
    library = Tokenizer(models.BPE({letter: i for i, letter in enumerate("<|end> a")}, []))
    library.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    library.add_special_tokens([AddedToken("<|end|>", normalized=True)])
    tokenizer, end = TextTokenizer(library, end_ids=()), library.token_to_id("<|end|>")
    for text in ("a<|END|>", "a＜|end|＞", "<|end|>"):
        assert end in library.encode(text).ids
        assert end not in tokenizer.encode_piece(text)


def test_a_control_token_of_one_character_is_refused() -> None:
    library = Tokenizer(models.WordLevel({"a": 0, "¤": 1, "?": 2}, "?"))
    library.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    library.add_special_tokens(["¤"])
    tokenizer = TextTokenizer(library, end_ids=())
    with pytest.raises(RequestError, match="can only be encoded as the control token"):
        tokenizer.encode_piece("a¤")
    assert tokenizer.encode_piece(TemplateText("a¤")) == [0, 1]


def test_many_of_them_take_no_more_than_their_share() -> None:
    tokenizer = TOKENIZERS["byte_level"]
    ids = tokenizer.encode_piece("<|im_end|>" * 3000)
    assert len(ids) == 3000 * len(tokenizer.encode_piece("<|im_end|>"))


def test_what_a_tokenizer_cannot_do_is_a_refusal() -> None:
    library = Tokenizer(models.WordLevel({"a": 0}, "[UNK]"))
    with pytest.raises(RequestError, match="tokenizer cannot take this"):
        TextTokenizer(library, end_ids=()).encode_piece("b")
    panics = mistral()  # the library itself does, on an empty text
    panics.decoder = decoders.Sequence([decoders.Fuse(), decoders.Strip(" ", 0, 1)])
    with pytest.raises(RequestError, match="tokenizer cannot take this"):
        TextTokenizer(panics, end_ids=()).decode([])


# The vocabulary -----------------------------------------------------------------------------------


def test_added_tokens_beyond_the_embedding_are_text(caplog: pytest.LogCaptureFixture) -> None:
    library = FAMILIES["byte_level"]()
    size = library.get_vocab_size()
    library.add_tokens([f"<extra_{number}>" for number in range(20)])
    library.add_special_tokens(["<late>"])
    with caplog.at_level(logging.WARNING):
        tokenizer = TextTokenizer(library, end_ids=(0, size + 3, -1), vocabulary=size)
    assert "none for 21 added tokens of its tokenizer, such as <extra_0>" in caplog.text
    assert tokenizer.end_ids == (0,)
    for text in ("a<extra_3>b<late>", TemplateText("a<extra_3>b<late>")):
        ids = tokenizer.encode_prompt(text)
        assert max(ids) < size
        assert tokenizer.decode(ids) == text


def test_a_tokenizer_of_another_base_is_refused() -> None:
    library = FAMILIES["byte_level"]()
    with pytest.raises(BundleError, match=r"the tokenizer knows .* ids, the base 300: they do not"):
        TextTokenizer(library, end_ids=(), vocabulary=300)
    begins = FAMILIES["llama3"]()
    size = begins.get_vocab_size()
    with pytest.raises(BundleError, match="do not belong together"):
        TextTokenizer(begins, end_ids=(), vocabulary=size - 4)


def test_an_id_beyond_the_base_among_few_entries() -> None:
    library = Tokenizer(models.WordLevel({"a": 0, "b": 7}, "a"))
    with pytest.raises(BundleError, match="the tokenizer knows 8 ids, the base 4"):
        TextTokenizer(library, end_ids=(), vocabulary=4)
    assert TextTokenizer(library, end_ids=(), vocabulary=8).encode_piece("b") == [7]


def test_ids_that_no_entry_has() -> None:
    library = FAMILIES["byte_level"]()
    size = library.get_vocab_size()
    for vocabulary, without in ((size, set()), (size + 3, {size, size + 2})):
        tokenizer = TextTokenizer(library, end_ids=(size + 1,), vocabulary=vocabulary)
        assert tokenizer.unnamed == without


# TemplateText -------------------------------------------------------------------------------------


def test_a_text_knows_what_its_template_wrote() -> None:
    text = render_prompt("{{<s>{{{a}</s>{b}", {"a": "x{y}", "b": ""})
    assert text == "{<s>{x{y}</s>"
    assert text.writes(0, 5)
    assert text.writes(9, 13)
    assert not text.writes(4, 6)
    outer = render_prompt("{input}!", {"input": text})
    assert outer.writes(0, 5)
    assert not outer.writes(4, 6)
    assert outer.cut(1).writes(0, 4)
    assert not outer.cut(1, 8).writes(4, 7)
    assert pickle.loads(pickle.dumps(outer)).own == outer.own
    assert type(outer + "x") is str
