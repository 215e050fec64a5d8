"""What a job ends with when it does not end well; each message has the remedy."""

from __future__ import annotations


class JobError(Exception):
    """A job cannot go on."""


class JobLocked(JobError):
    """Another process works on this folder."""


class OtherJob(JobError):
    """The folder holds parts of another job; the message names the difference."""


class JobDamaged(JobError):
    """A file of the folder is not what a job writes."""


class InputsChanged(JobError):
    """The inputs are not those that the job began with."""


class InputUnusable(JobError, ValueError):
    """An image, or a file of them, ends a job on its way: the file is damaged, or strict=True lets nothing pass."""


class FolderUnusable(JobError):
    """The folder cannot be written: it is read-only, the disk is full, ..."""


class WorkerDied(JobError):
    """A process that searches on a device of its own has ended before its work was done."""


class JobInterrupted(KeyboardInterrupt):
    """A signal ended the job; its finished parts are kept.

    Attributes:
        signal: its number.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal
