"""The backend of a layer: a name that is resolved when it is first needed, or an instance."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from sparsebench.errors import UsageError
from sparsebench.problem import Problem

if TYPE_CHECKING:
    from sparsebench.plugin import Backend, BackendSpec
    from sparsebench.registry import Registry


class BackendHandle:
    """A backend and what it is called.

    Copies of a layer share the handle; a pickle holds the name where there is one, and only else the instance.
    """

    def __init__(self, backend: str | Backend | BackendHandle) -> None:
        """Raises `UsageError` when no such backend is installed, or when the object is none."""
        self.name: str
        self._spec: Any = None
        self._backend: Backend | None = None
        if isinstance(backend, BackendHandle):
            self.name, self._spec, self._backend = backend.name, backend._spec, backend._backend
        elif isinstance(backend, str):
            self.name = backend
            self._spec = _installed().find("backends", backend)[0].spec
        elif callable(getattr(backend, "bind", None)) and callable(getattr(backend, "unsupported", None)):
            self.name, self._backend = type(backend).__name__, backend
        else:
            raise UsageError(f"backend = {backend!r} is neither a name nor an object with `unsupported` and `bind`")

    @classmethod
    def made(cls, backend: Backend, spec: BackendSpec) -> BackendHandle:
        """A backend that somebody has made already, held to what its spec says."""
        handle = cls(backend)
        handle.name, handle._spec = spec.name, spec
        return handle

    @property
    def backend(self) -> Backend:
        """The instance; made on first use."""
        if self._backend is None:
            self._backend = _installed().create("backends", self.name)
        return self._backend

    def unsupported(self, problem: Problem) -> str | None:
        """Why the backend cannot do the problem, as its spec or its instance says; None if it can."""
        refusal = None if self._spec is None else self._spec.refuses(problem)
        return refusal or self.backend.unsupported(problem)

    def __deepcopy__(self, memo: dict[int, Any]) -> BackendHandle:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (BackendHandle, (self.name if self._spec is not None else self._backend,))

    def __repr__(self) -> str:
        return self.name


def float32_backends() -> Iterator[BackendHandle]:
    """The installed backends of precision class float32 that can run on this machine, by name."""
    for name, entry in sorted(_installed().backends.items()):
        if entry.spec.precision == "float32" and entry.missing() is None:
            yield BackendHandle(name)


@cache
def _installed() -> Registry:
    # Looking at other people's plugins starts a process for each: once is enough.
    from sparsebench.registry import load_registry

    return load_registry()
