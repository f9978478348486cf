"""Tokenizers of the families that bases come with, made in place: small vocabularies, the rules of
the real ones. Each has special tokens, added tokens that are not special, and text of all kinds.
"""

from __future__ import annotations

from collections.abc import Callable

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

CORPUS = [
    "The quick brown fox jumps over the lazy dog. Where is the café? It is near the river.",
    "Once upon a time.\nThere was a little dog. Time and again, they're the same time!",
    "<|im_start|>user\nHello there<|im_end|>\n<s>[INST] Be brief [/INST]</s>",
    "name: Ann | city: Rome | don't do this , or that .",
]
PADDING = 24
"""Ids beyond the tokenizer's that a padded embedding has."""
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_SENTENCEPIECE_DECODER = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]


def byte_level() -> Tokenizer:
    """GPT-2, Qwen, SmolLM: bytes as characters; ChatML's tokens, one of them stripping spaces."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    _train(tokenizer, ["<|endoftext|>"], alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.add_tokens([AddedToken("<think>"), AddedToken("</think>"), AddedToken("\n\n")])
    return tokenizer


def llama3() -> Tokenizer:
    """Byte-level too, whole words of the vocabulary first, a begin token before each text."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}{1,3}|\s+|[^\s\p{L}\p{N}]+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    _train(tokenizer, [], alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.add_special_tokens(
        ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
    )
    return _beginning(tokenizer, "<|begin_of_text|>")


def llama2() -> Tokenizer:
    """Llama 2 as it was converted first: ▁ is put before every piece, and stripped from the
    beginning of what is decoded.
    """
    tokenizer = Tokenizer(_byte_fallback_bpe())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence([*_SENTENCEPIECE_DECODER, decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    return _beginning(tokenizer, "<s>")


def mistral() -> Tokenizer:
    """The same vocabulary under Metaspace, which puts ▁ before the first piece only."""
    tokenizer = Tokenizer(_byte_fallback_bpe())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([*_SENTENCEPIECE_DECODER, decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>", "[INST]", "[/INST]"])
    return _beginning(tokenizer, "<s>")


def gemma() -> Tokenizer:
    """▁ for the space and nothing before a text; runs of line feeds and turns are added tokens."""
    tokenizer = Tokenizer(_byte_fallback_bpe())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(list(_SENTENCEPIECE_DECODER))
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.add_tokens(
        [
            AddedToken(text, normalized=False)
            for text in ("<start_of_turn>", "<end_of_turn>", "\n\n")
        ]
    )
    return _beginning(tokenizer, "<s>")


def unigram() -> Tokenizer:
    """sentencepiece's Unigram as T5 and XLM-R have it: special tokens are pieces of the model as
    well, spaces are folded, and ▁ stands before every text.
    """
    words = ("▁", "▁the", "▁time", "▁Once", "▁dog", "the", "re", "▁The", "▁a", ".", ",", "é", "!")
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789<>|/_[]:;'?-"
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((word, -3.0) for word in words)]
    pieces += [(letter, -8.0) for letter in letters]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Strip(left=False, right=True),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>", "<extra_id_0>"])
    return tokenizer


def wordpiece() -> Tokenizer:
    """BERT: lower case, ## within words, spaces before punctuation cleaned up."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]"]
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False),
    )
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ids
    )
    return tokenizer


def suffixes() -> Tokenizer:
    """The first GPT, CTRL, BioGPT: </w> ends a word."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<unk>", "</s>"],
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def words() -> Tokenizer:
    """Whole words and no decoder at all: decoding puts a space between them."""
    entries = ["<unk>", "</s>", *dict.fromkeys(" ".join(CORPUS).split())]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(entries)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<unk>", "</s>"])
    return tokenizer


def strips_two() -> Tokenizer:
    """No published one: a decoder that strips two spaces from the beginning."""
    tokenizer = mistral()
    tokenizer.decoder = decoders.Sequence([*_SENTENCEPIECE_DECODER, decoders.Strip(" ", 2, 0)])
    return tokenizer


FAMILIES: dict[str, Callable[[], Tokenizer]] = {
    make.__name__: make
    for make in (
        byte_level, llama3, llama2, mistral, gemma, unigram, wordpiece, suffixes, words,
        strips_two,
    )
}  # fmt: skip


def _byte_fallback_bpe() -> models.BPE:
    base = ["<unk>", "<s>", "</s>", *_BYTES, *sorted({*"▁�", *"".join(CORPUS).replace(" ", "▁")})]
    base = [piece for piece in base if piece != "\n"]  # a byte, as in Llama's
    merges = [
        ("t", "h"), ("th", "e"), ("▁", "the"), ("▁", "t"), ("i", "m"), ("im", "e"), ("▁t", "ime"),
        ("▁", "T"), ("▁T", "h"), ("▁Th", "e"), ("▁", "▁"), ("▁▁", "▁▁"), ("r", "e"), ("d", "o"),
        ("do", "g"), ("▁", "dog"),
    ]  # fmt: skip
    entries = [*base, *("".join(pair) for pair in merges)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(entries))}
    return models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)


def _beginning(tokenizer: Tokenizer, begin: str) -> Tokenizer:
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, tokenizer.token_to_id(begin))]
    )
    return tokenizer


def _train(tokenizer: Tokenizer, special: list[str], *, alphabet: list[str]) -> None:
    trainer = trainers.BpeTrainer(
        vocab_size=360, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
