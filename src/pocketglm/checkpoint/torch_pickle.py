"""The pickle inside a PyTorch file, read without running it.

Enters: the bytes of `data.pkl`. Leaves: descriptions of tensors by name. A pickle is a program for a
stack machine; this is a machine that knows only the instructions and the few calls of a state dict.
Nothing is ever imported or called by name: a pickle that asks for more gets `UnsafePickleError`.
The standard unpickler is not used even with its lookups restricted, since a few bytes can make its
C implementation take gigabytes (a memo index of 2^31, a byte string that claims to be huge).
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pocketglm.errors import CheckpointError, UnsafePickleError

MAX_PICKLE_BYTES = 16 << 20
"""About 100 bytes a tensor are used, and the largest known models have fewer than 100000 tensors."""

STORAGE_TYPES = {
    "torch.DoubleStorage": "F64",
    "torch.FloatStorage": "F32",
    "torch.HalfStorage": "F16",
    "torch.BFloat16Storage": "BF16",
    "torch.LongStorage": "I64",
    "torch.IntStorage": "I32",
    "torch.ShortStorage": "I16",
    "torch.CharStorage": "I8",
    "torch.ByteStorage": "U8",
    "torch.BoolStorage": "BOOL",
}


@dataclass(frozen=True)
class Storage:
    """A run of `count` elements of one type, stored in the archive entry `data/<key>`."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class PickledTensor:
    """A view of a storage. Offset, shape and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[Any, ...]  # checked by whoever places the tensor
    stride: tuple[Any, ...]


@dataclass(frozen=True)
class _Global:
    """A name that the pickle asked for and that we know. It is a tag: nothing is imported."""

    name: str


class _Mark:
    """Marks a place on the stack."""


def read_state_dict(pickled: bytes, where: str) -> dict[str, PickledTensor]:
    """Tensors by name from the pickle of a state dict. Entries that are not tensors are left out."""
    if len(pickled) > MAX_PICKLE_BYTES:
        raise CheckpointError(
            f"the pickle is {len(pickled)} bytes long, expected at most {MAX_PICKLE_BYTES}", where=where
        )
    result = _Machine(where).run(pickled)
    if not isinstance(result, dict):
        raise CheckpointError(
            f"holds a {type(result).__name__}, expected a state dict (names and tensors)",
            where=where,
            hint="save the model with torch.save(model.state_dict(), path)",
        )
    tensors = {key: value for key, value in result.items() if isinstance(value, PickledTensor)}
    if not tensors:
        keys = ", ".join(list(result)[:8]) or "nothing"
        raise CheckpointError(f"holds no tensors at its top level; found: {keys}", where=where)
    return tensors


class _Machine:
    """The stack machine. Values are None, bool, int, float, str, tuple, list, dict and our own tags.

    Untrusted values are never compared, hashed or printed unless their type is known first: tuples
    that contain each other twice make those operations take exponential time.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, pickled: bytes) -> Any:
        """The value the pickle leaves on the stack."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # pickletools, on a backslash in a name
                return self._run(pickled)
        except (ValueError, IndexError, OverflowError) as error:  # genops on cut or damaged input
            raise self._damaged(str(error)) from error

    def _run(self, pickled: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name == "STOP":
                return self._pop()
            self._step(opcode.name, argument)
        raise self._damaged("no end")

    def _step(self, name: str, argument: Any) -> None:
        if name in _PUSH_ARGUMENT:
            self._stack.append(argument)
        elif name in _PUSH_CONSTANT:
            self._stack.append(_PUSH_CONSTANT[name]())
        elif handler := _HANDLERS.get(name):
            handler(self, argument)
        else:
            asked = f" for {str(argument).replace(' ', '.')}" if name == "INST" else ""
            raise UnsafePickleError(
                f"refused: the pickle uses the instruction {name}{asked}, which no state dict needs",
                where=self._where,
            )

    # Stack and memo

    def _pop(self) -> Any:
        if not self._stack or self._stack[-1] is _Mark:
            raise self._damaged("a value is missing")
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        position = next((i for i in range(len(self._stack) - 1, -1, -1) if self._stack[i] is _Mark), None)
        if position is None:
            raise self._damaged("a mark is missing")
        items = self._stack[position + 1 :]
        del self._stack[position:]
        return items

    def _top(self, kind: type) -> Any:
        if not self._stack or not isinstance(self._stack[-1], kind):
            raise self._damaged(f"a {kind.__name__} is missing")
        return self._stack[-1]

    def _mark(self, _: Any) -> None:
        self._stack.append(_Mark)

    def _put(self, index: int) -> None:
        self._memo[index] = self._top(object)

    def _memoize(self, _: Any) -> None:
        self._put(len(self._memo))

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise self._damaged(f"memo entry {index} is missing")
        self._stack.append(self._memo[index])

    def _nothing(self, _: Any) -> None:
        """PROTO and FRAME only frame the stream."""

    # Containers

    def _tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._pop_to_mark()))

    def _tuple1(self, _: Any) -> None:
        self._stack.append((self._pop(),))

    def _tuple2(self, _: Any) -> None:
        second, first = self._pop(), self._pop()
        self._stack.append((first, second))

    def _tuple3(self, _: Any) -> None:
        third, second, first = self._pop(), self._pop(), self._pop()
        self._stack.append((first, second, third))

    def _list(self, _: Any) -> None:
        self._stack.append(self._pop_to_mark())

    def _dict(self, _: Any) -> None:
        items = self._pop_to_mark()
        self._stack.append({})
        self._fill_dict(items)

    def _append(self, _: Any) -> None:
        value = self._pop()
        self._top(list).append(value)

    def _appends(self, _: Any) -> None:
        items = self._pop_to_mark()
        self._top(list).extend(items)

    def _set_item(self, _: Any) -> None:
        value, key = self._pop(), self._pop()
        self._fill_dict([key, value])

    def _set_items(self, _: Any) -> None:
        self._fill_dict(self._pop_to_mark())

    def _fill_dict(self, items: list[Any]) -> None:
        target = self._top(dict)
        if len(items) % 2:
            raise self._damaged("a dictionary has a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str):
                raise self._damaged(f"a dictionary key is a {type(key).__name__}, expected a string")
            target[key] = value

    # What a normal unpickler would look up and call

    def _global(self, argument: str) -> None:
        self._push_global(argument.replace(" ", "."))

    def _stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise UnsafePickleError("refused: the pickle looks up a name that is not text", where=self._where)
        self._push_global(f"{module}.{name}")

    def _push_global(self, name: str) -> None:
        if name not in STORAGE_TYPES and name not in _CALLS:
            raise UnsafePickleError(
                f"refused: the pickle asks for {name[:200]}, which no state dict needs",
                where=self._where,
                hint="this file may run any program when loaded elsewhere; get the model as safetensors",
            )
        self._stack.append(_Global(name))

    def _reduce(self, _: Any) -> None:
        arguments, function = self._pop(), self._pop()
        call = _CALLS.get(function.name) if isinstance(function, _Global) else None
        if call is None or not isinstance(arguments, tuple):
            raise UnsafePickleError(
                "refused: the pickle calls something that is not a function", where=self._where
            )
        value = call(arguments)
        if value is None:
            raise self._damaged(f"{function.name} is called with wrong arguments")
        self._stack.append(value)

    def _build(self, _: Any) -> None:
        """State dicts carry a `_metadata` attribute, which is not needed. Nothing else may have state."""
        self._pop()
        self._top(dict)

    def _persistent_id(self, _: Any) -> None:
        storage = _storage(self._pop())
        if storage is None:
            raise self._damaged("a storage reference is malformed")
        self._stack.append(storage)

    def _damaged(self, detail: str) -> CheckpointError:
        return CheckpointError(
            f"the pickle is damaged: {detail[:200]}", where=self._where, hint="download the file again"
        )


def _storage(reference: Any) -> Storage | None:
    """('storage', type, key, device, element count), as torch.save writes it."""
    if not isinstance(reference, tuple) or len(reference) != 5:
        return None
    tag, kind, key, _, count = reference
    if not isinstance(tag, str) or tag != "storage" or not isinstance(kind, _Global):
        return None
    if kind.name not in STORAGE_TYPES or not isinstance(key, str) or type(count) is not int or count < 0:
        return None
    return Storage(key, STORAGE_TYPES[kind.name], count)


def _rebuild_tensor(arguments: tuple[Any, ...]) -> PickledTensor | None:
    """torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks, ...)."""
    if len(arguments) < 4:
        return None
    storage, offset, shape, stride = arguments[:4]
    if not isinstance(storage, Storage) or type(offset) is not int or offset < 0:
        return None
    if not isinstance(shape, tuple) or not isinstance(stride, tuple):
        return None
    return PickledTensor(storage, offset, shape, stride)


def _rebuild_parameter(arguments: tuple[Any, ...]) -> PickledTensor | None:
    """torch._utils._rebuild_parameter(tensor, requires_grad, hooks): the tensor itself."""
    return arguments[0] if arguments and isinstance(arguments[0], PickledTensor) else None


def _empty_dict(arguments: tuple[Any, ...]) -> dict[str, Any] | None:
    return None if arguments else {}


_CALLS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "collections.OrderedDict": _empty_dict,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
}

_PUSH_NUMBER = ("BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "BINFLOAT")
_PUSH_TEXT = ("UNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE")
_PUSH_ARGUMENT = frozenset((*_PUSH_NUMBER, *_PUSH_TEXT))

_PUSH_CONSTANT: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}

_HANDLERS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _Machine._nothing,
    "FRAME": _Machine._nothing,
    "MARK": _Machine._mark,
    "PUT": _Machine._put,
    "BINPUT": _Machine._put,
    "LONG_BINPUT": _Machine._put,
    "MEMOIZE": _Machine._memoize,
    "GET": _Machine._get,
    "BINGET": _Machine._get,
    "LONG_BINGET": _Machine._get,
    "TUPLE": _Machine._tuple,
    "TUPLE1": _Machine._tuple1,
    "TUPLE2": _Machine._tuple2,
    "TUPLE3": _Machine._tuple3,
    "LIST": _Machine._list,
    "DICT": _Machine._dict,
    "APPEND": _Machine._append,
    "APPENDS": _Machine._appends,
    "SETITEM": _Machine._set_item,
    "SETITEMS": _Machine._set_items,
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "REDUCE": _Machine._reduce,
    "BUILD": _Machine._build,
    "BINPERSID": _Machine._persistent_id,
}
