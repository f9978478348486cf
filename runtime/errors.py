"""Every error that a user of edgeprefix can meet, in one tree.

EdgePrefixError                 catch this to catch them all; the command line prints it as one line
and exits with 1
├── DataError                   rows that cannot be read: names file and line
├── FileFormatError             a file that is not what it should be
│   ├── PrefixFileError         truncated, altered or foreign prefix file
│   │   └── SignatureError      not signed by a key that is trusted, or a key that cannot be read
│   ├── BundleError             a folder that is no bundle, or a damaged one
│   └── CheckpointError         a folder that is no base model that we can read
├── OutputError                 a place that cannot be written (exists, read-only, full)
├── BaseMismatchError           a prefix of one base met another base
├── UnknownTaskError            no prefix of that name is loaded
├── RequestError                a request that cannot be served as it stands
│   ├── PromptTooLongError      prefix + prompt + new tokens do not fit the cache
│   └── TemplateError           a template and what it is filled with do not fit together
├── CapacityError               memory or a byte budget does not suffice
├── QueueFullError              too many requests wait already
├── RequestInterrupted          a request that ended before it was finished; holds the text so far
│   ├── RequestCancelled        the caller cancelled it
│   └── RequestTimeout          its time was over
├── EngineClosedError           the engine was closed
├── NumericalError              the base produced NaN or infinity
├── ProviderError               an execution provider that is missing or lacks a kernel
├── TrainingError               training cannot start or go on
│   ├── TrainingInterrupted     Ctrl-C; a resume goes on from there
│   └── TrainingDiverged        a loss became infinite or no number
├── ExportError                 a base cannot be exported
│   ├── ParityError             the exported graph differs from torch
│   └── UnsupportedBaseError    a base that can take no prefix; also a TrainingError
└── MissingExtraError           an optional part of edgeprefix is not installed

A message says what was got, what was expected and what to do next.
"""

from __future__ import annotations

from typing import Any, ClassVar


class EdgePrefixError(Exception):
    """Base of every error meant for users."""

    row: int | None = None
    """Of a batch (`generate_many`, `score_many`): which request failed, counted from 0."""
    finished: tuple[Any, ...] = ()
    """Of a batch: the results of the requests before it."""


class DataError(EdgePrefixError):
    """Rows that cannot be read; the message names file and line."""


class FileFormatError(EdgePrefixError):
    """A file that is not what it should be."""


class PrefixFileError(FileFormatError):
    """A truncated, altered or foreign prefix file."""


class SignatureError(PrefixFileError):
    """A prefix file that no trusted key signed, or a key that cannot be read."""


class BundleError(FileFormatError):
    """A folder that is no bundle, or a damaged one."""


class CheckpointError(FileFormatError):
    """A folder that is no base model that can be read."""


class OutputError(EdgePrefixError):
    """A place that cannot be written: it exists already, is read-only, or is full."""


class BaseMismatchError(EdgePrefixError):
    """A prefix of one base met another base; the message names both."""


class UnknownTaskError(EdgePrefixError):
    """No prefix of that name is loaded; the message offers the nearest names."""


class RequestError(EdgePrefixError):
    """A request that cannot be served as it stands."""


class PromptTooLongError(RequestError):
    """Prefix, prompt and new tokens do not fit the cache; the message gives the numbers."""


class TemplateError(RequestError):
    """A prompt template names a field that a row does not have, or cannot be parsed; or a base's
    chat template is at fault.
    """


class CapacityError(EdgePrefixError):
    """Memory or a byte budget does not suffice; the message gives the numbers."""


class QueueFullError(EdgePrefixError):
    """Too many requests wait already."""


class RequestInterrupted(EdgePrefixError):
    """A request that ended before it was finished."""

    reason: ClassVar[str]
    partial: Any = None
    """The Completion as far as it came, its finish_reason being `reason`; None when no token was
    generated, or none was asked for.
    """


class RequestCancelled(RequestInterrupted):
    """The caller cancelled the request."""

    reason = "cancelled"


class RequestTimeout(RequestInterrupted):
    """The request's time was over before it finished."""

    reason = "timeout"


class EngineClosedError(EdgePrefixError):
    """The engine was closed."""


class NumericalError(EdgePrefixError):
    """The base produced NaN or infinity."""


class ProviderError(EdgePrefixError):
    """An execution provider is missing, or lacks a kernel that the graph needs."""


class TrainingError(EdgePrefixError):
    """Training cannot start or go on."""


class TrainingInterrupted(TrainingError):
    """Ctrl-C ended a training; its checkpoint is whole, and a resume goes on from there."""


class TrainingDiverged(TrainingError):
    """A loss became infinite or no number."""


class ExportError(EdgePrefixError):
    """A base cannot be exported; the message names the reason."""


class ParityError(ExportError):
    """The exported graph differs from torch by more than its precision's bound."""


class UnsupportedBaseError(ExportError, TrainingError):
    """A base of a kind that can neither be trained on nor exported; the message names the kind."""


class MissingExtraError(EdgePrefixError):
    """An optional part of edgeprefix is not installed; the message says what to type."""
