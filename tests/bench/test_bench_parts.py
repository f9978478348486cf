"""The parts of `bench` alone: comparing, planning, limits, the JSON format, the plots."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import assert_stands_alone

from edgeprefix.bench.budget import FEWEST_ROUNDS, Candidate, make_plan, parse_budget
from edgeprefix.bench.cells import Cell, Grid, Setup, cells_of
from edgeprefix.bench.child import Child, Worker
from edgeprefix.bench.choose import choose, parse_sizes, thread_counts
from edgeprefix.bench.company import CompanyWatch, shares_for
from edgeprefix.bench.compare import compare, ratio_spread
from edgeprefix.bench.compare_page import render_comparison
from edgeprefix.bench.machine_card import machine_card, versions
from edgeprefix.bench.memory import peak_bytes
from edgeprefix.bench.memory_bandwidth import read_bandwidth
from edgeprefix.bench.page import render_report
from edgeprefix.bench.report import Measurement, Report
from edgeprefix.bench.result import limit_tokens_per_s
from edgeprefix.bench.spread import Number, percentiles
from edgeprefix.bench.weight_bytes import weight_bytes_per_step
from edgeprefix.page.charts import WIDTH, Bar, Interval, Series, curves, intervals, stacked
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.errors import EdgePrefixError, FileFormatError, RequestError

positive = st.floats(0.01, 1e6)
samples = st.lists(positive, min_size=1, max_size=9)
cells = st.builds(
    Cell,
    st.sampled_from(["mixed", "threads"]),
    batch=st.integers(1, 8),
    context=st.integers(1, 2048),
)


def make_report(measurements: Sequence[Measurement], **changes: Any) -> Report:
    """A report around some measurements."""
    facts: dict[str, Any] = {
        "created": "2026-05-01 10:00 UTC",
        "complete": True,
        "bundle": {
            "name": "b",
            "base": "base & co",
            "base_sha256": "ab",
            "precision": "int8",
            "layers": 2,
            "file_bytes": 3_000_000,
            "weight_bytes_per_step": 2_000_000,
        },
        "settings": {"threads": 2, "new_tokens": 8, "prefix": None, "prefix_positions": 5},
        "machine": {
            "processor": "some <processor>",
            "cores": 2,
            "logical_cores": 4,
            "features": [],
            "memory_bytes": None,
            "last_level_cache_bytes": None,
            "governor": None,
            "load_average": None,
            "system": "Linux",
        },
        "versions": {"edgeprefix": "0.1.0"},
        "bandwidth": {},
        "memory": {"peak": 1000, "files": 10},
        "circumstances": {
            "seconds": 9.0,
            "rounds": 7,
            "others_before": 0.0,
            "others_during": None,
            "steal_during": None,
            "first_start_ms": 900.0,
            "torch_loaded": False,
        },
        "measurements": tuple(measurements),
    }
    return Report(**facts | changes)


def decoding(rates: Sequence[float], batch: int = 1) -> Measurement:
    numbers = percentiles("token_ms", [[1000 / rate, 1100 / rate] for rate in rates]) | {
        "tokens_per_s": Number.of(rates)
    }
    return Measurement(Cell("decode", batch=batch, context=128), numbers, 1e4)


# Comparing ----------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(samples, samples)
def test_the_spread_of_a_ratio_holds_the_ratio_of_medians(a: list[float], b: list[float]) -> None:
    low, high = ratio_spread(a, b)
    assert low <= high
    assert min(b) / max(a) * 0.999 <= low
    assert high <= max(b) / min(a) * 1.001
    (difference,) = compare(
        *(make_report([Measurement(Cell("prefill"), {"x_ms": Number.of(s)})]) for s in (a, b))
    ).differences
    assert difference.low <= difference.ratio <= difference.high


@settings(max_examples=25, deadline=None)
@given(samples)
def test_a_report_against_itself_is_noise(a: list[float]) -> None:
    report = make_report([decoding(a)])
    assert {one.verdict for one in compare(report, report).differences} == {"noise"}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(100, 101), min_size=5, max_size=9), st.floats(1.2, 8))
def test_a_clear_difference_is_seen_from_both_sides(a: list[float], factor: float) -> None:
    one, other = make_report([decoding(a)]), make_report([decoding([rate * factor for rate in a])])
    assert {found.verdict for found in compare(one, other).differences} == {"better"}
    assert {found.verdict for found in compare(other, one).differences} == {"worse"}
    for there, back in zip(
        compare(one, other).differences, compare(other, one).differences, strict=True
    ):
        assert there.ratio * back.ratio == pytest.approx(1)


def test_differences_below_the_noise_do_not_count() -> None:
    steady = [100.0] * 7
    one, other = make_report([decoding(steady)]), make_report([decoding([102.0] * 7)])
    assert {found.verdict for found in compare(one, other).differences} == {"noise"}
    assert "better" in {found.verdict for found in compare(one, other, noise=0.01).differences}


def test_what_only_one_report_has_is_named_and_differences_of_kind_are_cautioned() -> None:
    one = make_report([decoding([1.0])])
    other = make_report(
        [decoding([1.0], batch=2)],
        warnings=("The machine was busy",),
        bundle={**one.bundle, "precision": "int4"},
    )
    found = compare(one, other)
    assert found.differences == ()
    assert found.only_one == (
        "decoding, batch 1, context 128 (only in A)", "decoding, batch 2, context 128 (only in B)",
    )  # fmt: skip
    assert found.cautions == ["precision differs: int8 and int4", "B: The machine was busy"]
    assert_stands_alone(render_comparison(found))


# The file -----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.tuples(cells, samples), max_size=5, unique_by=lambda pair: pair[0]))
def test_the_json_comes_back_as_it_was(found: list[tuple[Cell, list[float]]]) -> None:
    measurements = [
        Measurement(cell, {"tokens_per_s": Number.of([float(f"{s:.6g}") for s in rates])})
        for cell, rates in found
    ]
    report = make_report(measurements, skipped=(("x", "y"),), warnings=("w",))
    back = Report.from_json(
        json.loads(json.dumps({**report.to_json(), "decode_tokens_per_s": None}))
    )
    assert [one.cell for one in back.measurements] == [one.cell for one in measurements]
    for before, after in zip(measurements, back.measurements, strict=True):
        assert after.numbers["tokens_per_s"].samples == before.numbers["tokens_per_s"].samples
        assert after.numbers["tokens_per_s"].value == pytest.approx(
            before.numbers["tokens_per_s"].value, rel=1e-5
        )
    assert (back.skipped, back.warnings, back.bundle) == (
        report.skipped,
        report.warnings,
        report.bundle,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda data: data.update(kind="edgeprefix-bench-comparison"),
            "is of kind 'edgeprefix-bench-comparison'",
        ),
        (lambda data: data.update(format_version=2), "format version 2 is unknown"),
        (lambda data: data.pop("machine"), "is damaged: KeyError"),
        (
            lambda data: data["measurements"][0]["cell"].update(kind="dance"),
            "cell kind 'dance' is unknown",
        ),
        (
            lambda data: data["measurements"][0]["numbers"]["tokens_per_s"].update(samples=[]),
            "needs finite samples",
        ),
        (lambda data: data["measurements"][0]["cell"].update(colour=3), "is damaged: TypeError"),
    ],
)
def test_a_foreign_or_damaged_file_is_refused(
    change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    data = make_report([decoding([1.0, 2.0])]).to_json()
    change(data)
    with pytest.raises(FileFormatError, match=message):
        Report.from_json(data)
    with pytest.raises(FileFormatError, match="of kind 'list'"):
        Report.from_json([])


# Planning -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60s", 60),
        ("2m", 120),
        ("1m30s", 90),
        ("1h", 3600),
        ("90", 90),
        ("0.5m", 30),
        ("none", None),
    ],
)
def test_budgets_are_read(text: str, seconds: float | None) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "1x", "s", "-5s", "5 s!", "m1"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="is no time; expected something like 60s"):
        parse_budget(text)


def test_no_time_at_all_is_refused() -> None:
    with pytest.raises(RequestError, match="leaves no time"):
        parse_budget("0s")


@settings(deadline=None)
@given(
    st.lists(st.floats(0.001, 20), min_size=1, max_size=12), st.floats(0.1, 300), st.integers(1, 20)
)
def test_a_plan_keeps_the_budget_and_takes_what_it_can(
    prices: list[float], seconds: float, rounds: int
) -> None:
    candidates = [
        Candidate(Cell("decode", context=number + 1), price) for number, price in enumerate(prices)
    ]
    plan = make_plan(candidates, seconds, rounds)
    few = min(FEWEST_ROUNDS, rounds)
    assert sorted((*plan.chosen, *plan.skipped), key=candidates.index) == candidates
    assert plan.seconds <= seconds * (1 + 1e-9)
    assert few <= plan.rounds <= rounds
    left = seconds - sum(candidate.seconds(few) for candidate in plan.chosen)
    assert all(candidate.seconds(few) > left - 1e-9 for candidate in plan.skipped)
    if candidates[0].seconds(few) <= seconds:
        assert candidates[0] in plan.chosen, "the most important one comes first"
    if plan.rounds < rounds and plan.chosen:
        assert sum(candidate.seconds(plan.rounds + 1) for candidate in plan.chosen) > seconds


def test_without_a_budget_everything_is_measured() -> None:
    candidates = [Candidate(Cell("prefill"), 1e9)]
    assert make_plan(candidates, None, 7).chosen == tuple(candidates)


def test_the_first_cells_are_those_that_a_user_feels() -> None:
    order = [cell.label for cell in cells_of(Grid(threads=(1, 2)))]
    assert order[:3] == [
        "decoding, batch 1, context 128",
        "first token, prompt of 128",
        "cold start, prompt of 128",
    ]
    assert len(order) == len(set(order))
    assert order[-1] == "decoding, batch 8, context 1,024"


def test_what_does_not_fit_the_base_is_left_out_with_the_reason() -> None:
    choice = choose(Grid(new_tokens=16), max_positions=600, behind_prefix=False)
    assert max(cell.prompt_tokens or 0 for cell in choice.cells) == 512
    assert (
        "first token, prompt of 1,024",
        "needs more positions than the base's 600",
    ) in choice.unfit
    assert choice.max_length <= 600
    with pytest.raises(RequestError, match="nothing fits the base's 10 positions"):
        choose(Grid(), max_positions=10, behind_prefix=False)


def test_sizes_and_threads() -> None:
    assert parse_sizes("8, 1,8", "--batches") == (1, 8)
    assert [thread_counts(cores) for cores in (1, 2, 6)] == [(), (1, 2), (1, 2, 4, 6)]
    with pytest.raises(RequestError, match="--batches '1,x': expected positive numbers"):
        parse_sizes("1,x", "--batches")


# The machine --------------------------------------------------------------------------------------


def test_weights_are_counted_as_the_graph_reads_them(
    llama_bundle: Path, gpt2_bundle: Path, int4_bundle: Path
) -> None:
    """fp32: what a tiny model has; its position table (GPT-2) is only gathered from, its shared
    embedding is read whole.
    """
    found = {name: weight_bytes_per_step(name) for name in (llama_bundle, gpt2_bundle, int4_bundle)}
    for bundle, count in found.items():
        files = sum(
            record.bytes
            for name, record in Manifest.load(bundle).files.items()
            if name.startswith("decoder")
        )
        assert 0.3 * files < count < files, bundle
    assert found[int4_bundle] < 0.6 * found[llama_bundle]


def test_a_broken_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "decoder.onnx").write_bytes(b"\x3f\x00")
    with pytest.raises(EdgePrefixError, match="decoder.onnx cannot be read: wire type 7"):
        weight_bytes_per_step(tmp_path)


@settings(deadline=None)
@given(st.integers(1, 16), st.integers(0, 4096), st.integers(1, 10**9), st.integers(0, 10**5))
def test_the_limit_grows_with_rows_but_less_than_they_do(
    batch: int, context: int, weights: int, cache: int
) -> None:
    sizes = {"weight_bytes": weights, "cache_bytes_per_position": cache, "context": context}
    one = limit_tokens_per_s(1e10, batch=1, **sizes)
    many = limit_tokens_per_s(1e10, batch=batch, **sizes)
    assert one * 0.999 <= many <= batch * one * 1.001
    assert limit_tokens_per_s(1e10, batch=1, **sizes | {"context": 0}) == pytest.approx(
        1e10 / weights
    )


def test_what_the_machine_tells() -> None:
    card = machine_card()
    assert card["cores"] >= 1
    assert card["processor"]
    assert "numpy" in versions()
    assert "torch" not in versions()
    assert all(rate > 1e7 for rate in read_bandwidth(1 << 20, 1, repetitions=2))
    assert (peak_bytes() or 0) > 1 << 20


def test_our_own_work_is_not_company() -> None:
    watch = CompanyWatch()
    assert sum(number * number for number in range(400_000)) > 0
    shares = watch.shares()
    if shares is None:
        pytest.skip("this system does not tell what its cores do")
    assert 0 <= shares.others <= 1
    assert shares_for(0.01) is not None


# Processes ----------------------------------------------------------------------------------------


def test_a_child_that_fails_is_told_with_its_last_words() -> None:
    with (
        Child(["-c", "raise ValueError('no such luck')"]) as child,
        pytest.raises(EdgePrefixError, match="no such luck"),
    ):
        child.ask()


def test_a_worker_measures_and_goes_when_it_should(llama_bundle: Path) -> None:
    setup = Setup(
        bundle=llama_bundle,
        prefix=None,
        threads=1,
        providers=(),
        max_batch=2,
        max_length=64,
        new_tokens=4,
        prefix_positions=3,
    )
    with Worker(setup) as worker:
        assert worker.open()["step_s"] > 0
        samples = worker.measure(Cell("decode", batch=2, context=16))
        assert len(samples["token_ms"]) >= 3
        assert len(samples["tokens_per_s"]) == 1
        last = worker.finish()
    assert last["peak_bytes"] > 1 << 20
    assert last["torch_loaded"] is False


# Plots --------------------------------------------------------------------------------------------


def test_even_curves_put_doublings_at_equal_distances() -> None:
    line = Series(
        "rate",
        [(1, 1.0), (2, 2.0), (8, 4.0)],
        "prefix",
        dots=True,
        spread=[(0.5, 1.5), (1, 3), (3, 5)],
    )
    drawing = ElementTree.fromstring(curves([line], x_label="rows", title="rates", even=True))
    centres = [float(dot.get("cx", "0")) for dot in drawing.findall("circle")]
    assert centres[1] - centres[0] == pytest.approx(centres[2] - centres[1], abs=0.2)
    whiskers = [part for part in drawing.findall("line") if "whisker" in part.get("class", "")]
    assert all(float(part.get("y1", "0")) > float(part.get("y2", "0")) for part in whiskers)
    assert len(whiskers) == 3


def test_stacked_parts_fill_the_width() -> None:
    drawing = ElementTree.fromstring(stacked([Bar("a", 1, "1"), Bar("b", 3, "3")], title="parts"))
    widths = [
        float(part.get("width", "0"))
        for part in drawing.findall("rect")
        if part.get("height") == "16"
    ]
    assert sum(widths) == pytest.approx(WIDTH, abs=3)


@settings(deadline=None)
@given(st.lists(st.floats(1e-3, 1e3), max_size=4))
def test_intervals_stay_in_their_box(ratios: list[float]) -> None:
    rows = [Interval("x", ratio, ratio / 2, ratio * 2, "") for ratio in ratios]
    drawing = ElementTree.fromstring(intervals(rows, title="ratios", left="A", right="B"))
    ends = [float(part.get(end, "0")) for part in drawing.findall("line") for end in ("x1", "x2")]
    assert all(0 <= end <= WIDTH for end in ends)


def test_pages_of_little_are_drawn_too() -> None:
    for report in (
        make_report([]),
        make_report([decoding([5.0, 6.0])], warnings=("a <b>",), skipped=(("x", "y"),)),
    ):
        page = render_report(report)
        assert_stands_alone(page)
        assert "base &amp; co" in page
        assert "some &lt;processor&gt;" in page
