"""The race's command line."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from benchmarks.race.cells import SECTIONS
from benchmarks.race.convert import convert
from benchmarks.race.environments import ENVIRONMENTS, build
from benchmarks.race.field import CONTENDERS, PRECISIONS
from benchmarks.race.shapes import SHAPES

WORK = Path("~/.cache/edgeprefix-race").expanduser()


def main() -> None:
    """Parses and runs a command."""
    options = _parser().parse_args()
    options.work = options.work.expanduser().resolve()
    options.run(options)


def _build(options: argparse.Namespace) -> None:
    build(options.work, options.environments)


def _convert(options: argparse.Namespace) -> None:
    for model in options.models:
        for peer in options.peers:
            for precision in options.precisions:
                if CONTENDERS[peer].reason_against(model, precision) is None:
                    convert(options.work, peer, model, precision, force=options.force)


def _run(options: argparse.Namespace) -> None:
    from benchmarks.race.race import Plan, run_race
    from benchmarks.race.records import RecordFile

    plan = Plan(
        models=options.models,
        peers=options.peers,
        precisions=options.precisions,
        sections=options.sections,
        rounds=options.rounds,
        threads=options.threads,
        again=options.again,
    )
    run_race(options.work, plan, RecordFile(options.records or options.work / "records.jsonl"))


def _table(options: argparse.Namespace) -> None:
    from benchmarks.race.records import RecordFile
    from benchmarks.race.result import make_result, read_result, write_result
    from benchmarks.race.table import markdown

    if options.result:
        print(markdown(read_result(options.result)))
        return
    result = make_result(
        options.work, RecordFile(options.records or options.work / "records.jsonl")
    )
    if options.json:
        write_result(result, options.json)
    print(markdown(result))


def _plot(options: argparse.Namespace) -> None:
    from benchmarks.race.plot import draw
    from benchmarks.race.result import read_result

    draw(read_result(options.result), options.out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.race", description="The same weights through every engine."
    )
    parser.add_argument(
        "--work", type=Path, default=WORK, help=f"environments, models and records; default {WORK}"
    )
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser(
        "build", help="make the environments; reinstall this work tree in those that hold it"
    )
    command.add_argument("--environments", type=_some_of(ENVIRONMENTS), default=tuple(ENVIRONMENTS))
    command.set_defaults(run=_build)
    command = commands.add_parser("convert", help="make checkpoints and every peer's models")
    _add_filters(command)
    command.add_argument(
        "--force",
        action="store_true",
        help="also what is there already (`--peers ours` after a change)",
    )
    command.set_defaults(run=_convert)
    command = commands.add_parser("run", help="race; goes on where an earlier run ended")
    _add_filters(command)
    command.add_argument(
        "--sections",
        type=_some_of(SECTIONS),
        default=tuple(SECTIONS),
        help=f"of {','.join(SECTIONS)}",
    )
    command.add_argument("--rounds", type=int, default=5)
    command.add_argument("--threads", type=int, default=2)
    command.add_argument("--again", action="store_true", help="measure cells that failed once more")
    command.add_argument(
        "--records", type=Path, help="file to append to; default WORK/records.jsonl"
    )
    command.set_defaults(run=_run)
    command = commands.add_parser(
        "table", help="medians and ratios as Markdown, and as a JSON file"
    )
    command.add_argument("--records", type=Path)
    command.add_argument("--json", type=Path, help="file to write the result to; never overwritten")
    command.add_argument(
        "--result", type=Path, help="print the table of this result instead of the records'"
    )
    command.set_defaults(run=_table)
    command = commands.add_parser("plot", help="draw a result")
    command.add_argument("result", type=Path)
    command.add_argument("out", type=Path, help=".svg or .png")
    command.set_defaults(run=_plot)
    return parser


def _add_filters(command: argparse.ArgumentParser) -> None:
    for name, known in (
        ("--models", SHAPES),
        ("--peers", CONTENDERS),
        ("--precisions", PRECISIONS),
    ):
        command.add_argument(
            name, type=_some_of(known), default=tuple(known), help=f"of {','.join(known)}"
        )


class _some_of:  # noqa: N801
    """A comma-separated choice."""

    def __init__(self, known: Iterable[str]) -> None:
        self._known = tuple(known)

    def __call__(self, text: str) -> tuple[str, ...]:
        chosen = tuple(text.split(","))
        if unknown := set(chosen) - set(self._known):
            raise argparse.ArgumentTypeError(
                f"{','.join(unknown)} is not one of {','.join(self._known)}"
            )
        return chosen
