"""From texts to windows of tokens: natural prose and made-up documents, packed once, then read in a
fixed order.

`python -m edgeprefix.demo.pretraining.corpus --corpus FOLDER --work FOLDER` writes into the work
folder:

- `tokenizer.json`
- `natural.bin`, `synthetic.bin`: uint16 windows of `length` tokens. Natural text runs on from
  window to window; a made-up document is never cut, so that a record and its sentence stand in one
  window, and gaps are padding.
- `natural.validation.bin`, `synthetic.validation.bin`, and `copied.validation.bin`: the last marks
  the tokens of restated values, on which copying is measured.
- `corpus.json`: the counts, for the log.
"""

import argparse
import itertools
import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from edgeprefix.demo.pretraining.synthetic import Document, Materials, documents, write
from edgeprefix.demo.pretraining.synthetic.records import record_task
from edgeprefix.demo.pretraining.tokenizer import END, END_ID, PAD_ID, train_tokenizer

Tokens = npt.NDArray[np.uint16]

_SUBJECTS = {
    "Anatomy and Physiology": "anatomy",
    "Astronomy": "astronomy",
    "Economics": "economics",
    "U.S. History": "American history",
    "World History": "world history",
    "Business": "business",
    "Anthropology": "anthropology",
    "Psychology": "psychology",
    "Sociology": "sociology",
    "Government": "politics",
    "Philosophy": "philosophy",
}
_VALIDATION_SEED_OFFSET = 1_000_003
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"])")


class Prose:
    """The natural texts: novels, textbook sections by subject, validation texts."""

    def __init__(self, folder: Path) -> None:
        self.novels: list[str] = []
        self.textbooks: list[str] = []
        self.by_subject: dict[str, list[str]] = {}
        titles = [
            line.split("\t")[1]
            for line in (folder / "train.index.tsv").read_text("utf-8").splitlines()
        ]
        for title, text in zip(titles, _documents_of(folder / "train.txt"), strict=True):
            subject = next((name for key, name in _SUBJECTS.items() if key in title), None)
            if title.startswith("OpenStax"):
                self.textbooks.append(text)
                self.by_subject.setdefault(subject or "other", []).append(text)
            else:
                self.novels.append(text)
        self.validation = _documents_of(folder / "validation.txt")

    def materials(self, rng: Random, count: int = 40_000) -> Materials:
        """Return sentences for the generators: two thirds from textbooks, one third from novels."""
        by_subject = tuple(
            (subject, tuple(_sentences(rng, texts, 40, 170, count // 10)))
            for subject, texts in self.by_subject.items()
        )
        sentences = [
            *_sentences(rng, self.textbooks, 20, 130, count * 2 // 3),
            *_sentences(rng, self.novels, 20, 130, count // 3),
        ]
        return Materials(tuple(sentences), by_subject)


def _documents_of(path: Path) -> list[str]:
    texts = (text.strip() for text in path.read_text("utf-8").split(END))
    return [text for text in texts if text]


def _sentences(rng: Random, texts: Sequence[str], low: int, high: int, count: int) -> list[str]:
    """Draw whole sentences of `low` to `high` characters."""
    found: list[str] = []
    while len(found) < count:
        text = rng.choice(texts)
        start = rng.randrange(max(1, len(text) - 4000))
        pieces = _SENTENCE.split(text[start : start + 4000].replace("\n\n", " \n"))[1:-1]
        found += [
            piece
            for piece in pieces
            if low <= len(piece) <= high and "\n" not in piece and piece[-1] in ".!?"
        ]
    return found[:count]


def _tokenizer_texts(prose: Prose, made_up: Iterable[Document]) -> Iterator[str]:
    yield from (text[:60_000] for text in prose.textbooks)
    yield from (text[i : i + 50_000] for text in prose.novels for i in range(0, 150_000, 50_000))
    yield from (document.text for document in made_up)


def natural_windows(
    tokenizer: Tokenizer, texts: Sequence[str], length: int, *, skip: int = 0
) -> Tokens:
    """Join the texts, an end token after each, and cut the stream into windows; `skip` shifts the
    cuts.
    """
    parts: list[Tokens] = []
    for start in range(0, len(texts), 16):
        batch = tokenizer.encode_batch(list(texts[start : start + 16]))
        parts += [np.array([*encoded.ids, END_ID], np.uint16) for encoded in batch]
    stream = np.concatenate(parts)[skip:]
    return stream[: len(stream) // length * length].reshape(-1, length)


def synthetic_windows(
    tokenizer: Tokenizer, made_up: Iterator[Document], length: int, count: int
) -> Tokens:
    """Pack whole documents into `count` windows, filling each with the largest waiting document
    that still fits.
    """
    windows = np.full((count, length), PAD_ID, np.uint16)
    waiting: list[list[int]] = []
    for window in windows:
        used = 0
        while True:
            waiting = _refill(tokenizer, made_up, waiting, length)
            # The first in the queue opens the window; after it the largest that fits.
            fitting = [ids for ids in waiting if len(ids) <= length - used]
            if not fitting:
                break
            chosen = fitting[0] if used == 0 else max(fitting, key=len)
            waiting.remove(chosen)
            window[used : used + len(chosen)] = chosen
            used += len(chosen)
    return windows


def _refill(
    tokenizer: Tokenizer, made_up: Iterator[Document], waiting: list[list[int]], length: int
) -> list[list[int]]:
    if len(waiting) >= 24:
        return waiting
    texts = [document.text for document in itertools.islice(made_up, 128)]
    fresh = ([*encoded.ids, END_ID] for encoded in tokenizer.encode_batch(texts))
    return waiting + [ids for ids in fresh if len(ids) <= length]


def copied_tokens(tokenizer: Tokenizer, document: Document) -> tuple[list[int], list[bool]]:
    """Return a document's tokens and, for each, whether it belongs to a value that the text
    restates.
    """
    encoded = tokenizer.encode(document.text)
    spans: list[tuple[int, int]] = []
    at = 0
    for example in document.examples:
        start = document.text.index(
            example.target, document.text.index(example.source, at) + len(example.source)
        )
        at = start + len(example.target)
        for value in example.copied:
            place = example.target.find(value)
            if value and place >= 0:
                spans.append((start + place, start + place + len(value)))
    marks = [
        any(low <= left and right <= high + 1 and left < high for low, high in spans)
        for left, right in encoded.offsets
    ]
    return list(encoded.ids), marks


def copying_windows(
    tokenizer: Tokenizer, rng: Random, length: int, count: int
) -> tuple[Tokens, Tokens]:
    """Return `count` windows with one document of records each, and the marks of the restated
    values.
    """
    windows, marks = (np.full((count, length), fill, np.uint16) for fill in (PAD_ID, 0))
    for row in range(count):
        ids, marked = copied_tokens(
            tokenizer, write(rng, record_task(rng), most_characters=length * 3 // 2)
        )
        size = min(length, len(ids))
        windows[row, :size], marks[row, :size] = ids[:size], marked[:size]
    return windows, marks


def build(corpus: Path, work: Path, *, length: int, synthetic: int, seed: int) -> dict[str, int]:
    """Write the token files and return the counts; `synthetic` is the number of made-up windows."""
    work.mkdir(parents=True, exist_ok=True)
    prose = Prose(corpus)
    materials = prose.materials(Random(seed))
    sample = itertools.islice(documents(Random(seed + 1), materials), 12_000)
    tokenizer = train_tokenizer(_tokenizer_texts(prose, sample))
    tokenizer.save(str(work / "tokenizer.json"))
    # Textbooks are the smaller and the more modern part: they come twice, cut at other places the
    # second time.
    parts = [
        natural_windows(tokenizer, prose.novels, length),
        natural_windows(tokenizer, prose.textbooks, length),
    ]
    parts.append(natural_windows(tokenizer, prose.textbooks, length, skip=length // 2))
    held_out = Random(seed + _VALIDATION_SEED_OFFSET)
    validation = natural_windows(tokenizer, prose.validation, length)
    copying, marks = copying_windows(tokenizer, held_out, length, 128)
    files = {
        "natural": np.concatenate(parts),
        "synthetic": synthetic_windows(
            tokenizer, documents(Random(seed + 2), materials), length, synthetic
        ),
        "natural.validation": validation[:: max(1, len(validation) // 128)][:128],
        "synthetic.validation": synthetic_windows(
            tokenizer, documents(held_out, materials), length, 64
        ),
        "copied.validation": np.concatenate([copying, marks]),
    }
    for name, windows in files.items():
        windows.tofile(work / f"{name}.bin")
    counts = {name: len(windows) for name, windows in files.items()}
    counts |= {"length": length, "seed": seed, "padding": int((files["synthetic"] == PAD_ID).sum())}
    (work / "corpus.json").write_text(json.dumps(counts, indent=1) + "\n")
    return counts


class Windows:
    """The packed corpus as batches: which windows a step sees depends on the seed and the step
    alone.

    Of each batch, `shares[0]` are made up; from the step `change` on, `shares[1]`.
    """

    def __init__(
        self, work: Path, *, seed: int, batch: int, shares: tuple[float, float], change: int
    ) -> None:
        self.length = int(json.loads((work / "corpus.json").read_text())["length"])
        self.parts = [
            read_windows(work / f"{name}.bin", self.length) for name in ("natural", "synthetic")
        ]
        self.seed = seed
        self.change = change
        made_up = [round(batch * share) for share in shares]
        self.counts = [(batch - made_up[0], batch - made_up[1]), (made_up[0], made_up[1])]
        self._orders: dict[tuple[int, int], npt.NDArray[np.int64]] = {}

    def batch(self, step: int) -> npt.NDArray[np.int64]:
        """Return the tokens of one step, `[batch, length]`."""
        return np.stack([*self._rows(0, step), *self._rows(1, step)]).astype(np.int64)

    def _rows(self, part: int, step: int) -> list[Tokens]:
        windows = self.parts[part]
        places = range(self._used(part, step), self._used(part, step + 1))
        return [
            windows[self._order(part, place // len(windows), len(windows))[place % len(windows)]]
            for place in places
        ]

    def _used(self, part: int, step: int) -> int:
        """Count the windows of this part that the steps before `step` have taken."""
        early, late = self.counts[part]
        return min(step, self.change) * early + max(0, step - self.change) * late

    def _order(self, part: int, epoch: int, size: int) -> npt.NDArray[np.int64]:
        key = (part, epoch)
        if key not in self._orders:
            self._orders[key] = np.random.default_rng([self.seed, part, epoch]).permutation(size)
        return self._orders[key]


def read_windows(path: Path, length: int) -> Tokens:
    """Map a token file as `[windows, length]`."""
    return np.memmap(path, np.uint16, mode="r").reshape(-1, length)


def main() -> None:
    """Build the token files."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--corpus", type=Path, default=Path("../shared/data/corpus_en"))
    parser.add_argument("--work", type=Path, default=Path("build/pretraining"))
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--synthetic", type=int, default=36_000, help="number of made-up windows")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.perf_counter()
    counts = build(
        options.corpus,
        options.work,
        length=options.length,
        synthetic=options.synthetic,
        seed=options.seed,
    )
    print(json.dumps(counts | {"seconds": round(time.perf_counter() - start)}))


if __name__ == "__main__":
    main()
