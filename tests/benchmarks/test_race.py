"""The race's bookkeeping: medians, ratios round by round, cells that a peer cannot do, and going on
after an interruption.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _benchmarks_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(ROOT))
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "benchmarks"]:
        monkeypatch.delitem(sys.modules, name)


def records_of(speeds: dict[str, list[float | None]], cell: str = "decode_128") -> list[Any]:
    """A record for each peer and round; None is a round in which the peer failed."""
    from benchmarks.race.records import Record

    return [
        Record(round=number, peer=peer, model="gpt2-124m", precision="int4").of(
            cell,
            value=value,
            samples=[] if value is None else [value],
            reason="it broke" if value is None else None,
        )
        for peer, values in speeds.items()
        for number, value in enumerate(values)
    ]


PLACE = ("gpt2-124m", "int4", "decode_128")


def test_ratios_are_of_one_round_and_more_than_one_is_better() -> None:
    from benchmarks.race.aggregate import Standings

    # The machine was half as fast in the second round: medians of both sides apart would say
    # otherwise.
    standings = Standings(
        records_of({"ours": [100, 60, 90], "llama": [80, 40, 90], "genai": [50, 30, 45]})
    )
    llama = standings.rows[PLACE]["llama"]
    assert llama.value is not None
    assert (llama.value.median, llama.value.least, llama.value.most) == (80, 40, 90)
    assert llama.ratio is not None
    assert (llama.ratio.median, llama.ratio.least, llama.ratio.most) == pytest.approx(
        (1.25, 1.0, 1.5)
    )
    verdict = standings.verdict(PLACE)
    assert verdict is not None
    assert verdict.best == "llama"


def test_less_time_is_better() -> None:
    from benchmarks.race.aggregate import Standings

    standings = Standings(
        records_of({"ours": [50, 40], "llama": [60, 60], "openvino": [40, 30]}, cell="first_128")
    )
    verdict = standings.verdict(("gpt2-124m", "int4", "first_128"))
    assert verdict is not None
    assert verdict.best == "openvino"
    assert verdict.ratio.median == pytest.approx((40 / 50 + 30 / 40) / 2)


def test_what_a_peer_cannot_do_has_a_reason_and_no_ratio() -> None:
    from benchmarks.race.aggregate import Standings

    standings = Standings(
        records_of({"ours": [100, 100], "llama": [None, None], "genai": [None, 50]})
    )
    assert standings.rows[PLACE]["llama"].reason == "it broke"
    assert standings.rows[PLACE]["llama"].ratio is None
    genai = standings.rows[PLACE]["genai"]
    assert genai.ratio is not None
    assert (genai.ratio.median, genai.ratio.rounds) == (2, 1)
    assert Standings(records_of({"ours": [100], "llama": [None]})).verdict(PLACE) is None


def test_an_interrupted_race_goes_on(tmp_path: Path) -> None:
    """What is in the file is not measured again, failures are when asked; every line is whole."""
    from benchmarks.race.race import Plan, open_turns
    from benchmarks.race.records import RecordFile

    kept = RecordFile(tmp_path / "records.jsonl")
    written = [
        *records_of({"ours": [10.0]}, cell="first_1024"),
        *records_of({"ours": [10.0]}, cell="decode_1024"),
    ]
    written += [
        *records_of({"llama": [None]}, cell="first_1024"),
        *records_of({"llama": [None]}, cell="decode_1024"),
    ]
    for record in written:
        kept.append("cell", record)
    assert kept.records() == written

    def left(*, again: bool) -> list[tuple[int, str, list[str]]]:
        plan = Plan(
            models=("gpt2-124m",),
            precisions=("int4",),
            peers=("ours", "llama"),
            sections=("long",),
            rounds=2,
            threads=2,
            again=again,
        )
        return [(turn.round, turn.peer, sections) for turn, sections in open_turns(plan, kept)]

    assert left(again=False) == [(1, "llama", ["long"]), (1, "ours", ["long"])]
    assert left(again=True) == [
        (0, "llama", ["long"]),
        (1, "llama", ["long"]),
        (1, "ours", ["long"]),
    ]


def test_tables_say_who_won_and_who_is_missing() -> None:
    from benchmarks.race.table import markdown

    def cell(peer: str, median: float | None, ratio: float | None) -> dict[str, object]:
        spread = (
            None
            if median is None
            else {"median": median, "least": median, "most": median, "rounds": 2}
        )
        ratios = (
            None if ratio is None else {"median": ratio, "least": 1.1, "most": 1.3, "rounds": 2}
        )
        reason = "it has no 4-bit weights" if median is None else None
        return {
            "model": "m", "precision": "int4", "cell": "decode_128", "peer": peer,
            "value": spread, "ratio": ratios, "reason": reason, "rounds": {"0": [1.0], "1": [1.0]},
        }  # fmt: skip

    peers = {"ours": "edgeprefix", "llama": "llama.cpp", "ctranslate2": "CTranslate2"}
    machine = {"processor": "a processor", "features": ["avx2"]}
    text = markdown(
        {
            "turns": [{"others_cores": 0.01}],
            "sessions": [{"machine": machine, "threads": 2, "memory_bytes_per_s": [19e9, 20e9]}],
            "peers": {
                peer: {"title": title, "install_bytes": 10**8} for peer, title in peers.items()
            },
            "models": {
                "m": {
                    "title": "M",
                    "long_tokens": 960,
                    "weight_bytes_per_token": {"int4": 10**8},
                    "same_tokens_as_ours": {"int4": {"ours": 1.0, "llama": 0.5}},
                    "model_bytes": {"int4": {"ours": 10**8}},
                }
            },
            "cells": [
                cell("ours", 240, None),
                cell("llama", 200, 1.2),
                cell("ctranslate2", None, None),
            ],
        }
    )
    assert "| **ours to the best other** | **1.20 ×** (1.10–1.30) llama.cpp |" in text
    assert "| M int4 | **1.20 ×** (1.10–1.30) llama.cpp | – | – | – |" in text
    assert "| *memory's limit* | 200 | 200 | 1,600 |" in text
    assert "first token, 960, ms" in text
    assert "- CTranslate2, M int4: it has no 4-bit weights." in text
