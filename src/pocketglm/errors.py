"""Every error PocketGLM raises on purpose, and the exit code each one gives.

    PocketGLMError                 1
    ├── InputError                 2   an argument, a setting or a request is wrong
    │   └── ContextError           2   a text does not fit into the model's context
    ├── CheckpointError            3   the source model cannot be read
    │   ├── UnsafePickleError      3   a pickle asks for more than tensors
    │   └── UnsupportedModelError  3   an architecture, setting or format we do not implement
    ├── PackageError               4   a package is malformed
    │   └── IntegrityError         4   a package's bytes differ from its manifest
    ├── ResourceError              5   too little memory or disk
    │   └── BusyError              5   more requests than there is room for; try again later
    ├── EngineError                6   an engine cannot load or run the package
    │   └── DeviceMemoryError      6   the memory of a GPU is too small for what was put there
    └── MissingExtraError          7   an optional dependency is not installed

A message says what failed, where, what was expected and found; `hint` says what to do next.
"""

from __future__ import annotations


class PocketGLMError(Exception):
    """Base of all errors meant for a user. `exit_code` is what the command line returns."""

    exit_code = 1

    def __init__(self, message: str, *, where: object = None, hint: str | None = None) -> None:
        self.message = message
        self.where = None if where is None else str(where)
        self.hint = hint
        super().__init__(str(self))

    def __str__(self) -> str:
        return self.message if self.where is None else f"{self.where}: {self.message}"


class InputError(PocketGLMError):
    exit_code = 2


class ContextError(InputError):
    pass


class CheckpointError(PocketGLMError):
    exit_code = 3


class UnsafePickleError(CheckpointError):
    pass


class UnsupportedModelError(CheckpointError):
    pass


class PackageError(PocketGLMError):
    exit_code = 4


class IntegrityError(PackageError):
    pass


class ResourceError(PocketGLMError):
    exit_code = 5


class BusyError(ResourceError):
    pass


class EngineError(PocketGLMError):
    exit_code = 6


class DeviceMemoryError(EngineError):
    pass


class MissingExtraError(PocketGLMError):
    exit_code = 7
