"""The lines of metrics.jsonl for TensorBoard as well, when asked for (`--tensorboard`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from edgeprefix.runtime.contracts.files import output_errors
from edgeprefix.runtime.errors import MissingExtraError
from edgeprefix.train.record import RunFolder


def summary_writer() -> Any:
    """The class that writes event files. Raises MissingExtraError without the package."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "--tensorboard needs the package tensorboard; type: pip install "
            "'edgeprefix[tensorboard]'"
        ) from error
    return SummaryWriter


class TensorBoard:
    """Writes event files. Raises MissingExtraError without the package, OutputError when the folder
    cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with output_errors(self._folder):
            self._writer: Any = summary_writer()(str(self._folder))

    def add(self, entry: Mapping[str, Any]) -> None:
        """One line of metrics: every number under its name, at the line's step."""
        with output_errors(self._folder):
            for name, value in entry.items():
                if name != "step":
                    self._writer.add_scalar(name, value, entry["step"])
            self._writer.flush()

    def close(self) -> None:
        """Ends its thread and its file."""
        with output_errors(self._folder):
            self._writer.close()


@contextmanager
def mirrored(run: RunFolder, *, wanted: bool) -> Iterator[None]:
    """Within the block TensorBoard gets the run's lines of metrics, too, when it is `wanted`."""
    if not (wanted and run.writes):
        yield
        return
    with closing(TensorBoard(run.tensorboard_path)) as board:
        run.mirror = board.add
        try:
            yield
        finally:
            run.mirror = None
