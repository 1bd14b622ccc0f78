"""Every error that Maskmill raises on purpose, grouped by who must act, and the exit code of a command that it ends.

MaskmillError
├── ConfigError       the user, before a model is loaded (exit code 2)
├── InputError        nobody: one image is bad; it becomes a row with a status, and the run goes on
├── StorageError      the retry: a store did not do what was asked
│   ├── NotFoundError     the object or file is not there
│   │   └── OutOfReachError   nor is the bucket or volume that it would be in
│   ├── DeniedError       the credentials do not allow it
│   ├── DamagedError      the bytes are there and are not what they were written as
│   ├── TooManyBytesError the object has more bytes than the caller wants
│   ├── ChangedError      the object is no longer the one that was planned
│   └── SourceError       the user: a shard is gone or another one; nothing of it is final, the same command tries again
├── DeviceError       the driver: this process cannot use its device any more, another one may
├── RunError          the user: the work cannot go on; what is committed stays (exit code 3)
└── ContractError     us, the developers: a promise between two rooms was broken
"""

from __future__ import annotations

from pipeline.records import Status

WRONG_CONFIGURATION = 2
UNFINISHED = 3
INTERRUPTED = 130


class MaskmillError(Exception):
    """The root of the tree above."""


class ConfigError(MaskmillError):
    """A setting, a path or a checkpoint is wrong; the message says what to change."""


class InputError(MaskmillError):
    """One image cannot be used. Its row gets `status` as its status and `reason` as its error.

    `width` and `height` are those of the file, before its EXIF orientation is applied; 0 if they are not known.
    """

    def __init__(self, status: Status, reason: str, width: int = 0, height: int = 0) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason
        self.width = width
        self.height = height

    def __reduce__(self) -> tuple[type[InputError], tuple[Status, str, int, int]]:
        return InputError, (self.status, self.reason, self.width, self.height)


class StorageError(MaskmillError):
    """A read or write failed after the store's own retries. Trying again later may work."""


class NotFoundError(StorageError):
    """The named object, file or bucket does not exist."""


class OutOfReachError(NotFoundError):
    """The bucket or volume is not there. This says nothing of the objects in it."""


class DeniedError(StorageError):
    """The store refused the credentials or the permissions, which the next object would meet as well."""


class DamagedError(StorageError):
    """What was read is not what was written, or never was what it should be. The next read gives the same."""


class TooManyBytesError(StorageError):
    """The object has more bytes than the limit that was given; none was read."""

    def __init__(self, uri: str, size: int) -> None:
        super().__init__(f"{uri} has {size:,} bytes")
        self.uri = uri
        self.size = size

    def __reduce__(self) -> tuple[type[TooManyBytesError], tuple[str, int]]:
        return TooManyBytesError, (self.uri, self.size)


class ChangedError(StorageError):
    """The object's identity differs from the one recorded in the plan."""


class SourceError(StorageError):
    """A part of the source cannot be read as it was planned, through no fault of any image in it.

    shard  its name if all of it is concerned; "" if only the chunk is
    """

    def __init__(self, message: str, shard: str = "") -> None:
        super().__init__(message)
        self.shard = shard

    def __reduce__(self) -> tuple[type[SourceError], tuple[str, str]]:
        return SourceError, (str(self), self.shard)


class DeviceError(MaskmillError):
    """This process cannot use its device any more, or the device is too small; another process may."""


class RunError(MaskmillError):
    """The run stopped before its end. The cause may be gone when the same command is repeated."""


class ContractError(MaskmillError):
    """Maskmill contradicted itself. This is always a bug and never the user's fault."""


def exit_code_of(error: BaseException) -> int:
    """Of a command that ends with this error."""
    if isinstance(error, ConfigError):
        return WRONG_CONFIGURATION
    if isinstance(error, MaskmillError):
        return UNFINISHED
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
