"""Which adapters run, and which one is meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from hba.control.client import ControlClient, NobodyThere
from hba.errors import ControlError
from hba.runtime import control_path, control_sockets, runtime_dir
from hba.terminal.suggest import did_you_mean

F = TypeVar("F", bound=Callable[..., Any])


def adapter_option(command: F) -> F:
    """--adapter NAME, for commands that have other arguments."""
    return click.option("-a", "--adapter", metavar="NAME", help="Which adapter; needed when several run.")(command)


def running(timeout: float = 2.0) -> tuple[list[ControlClient], list[tuple[Path, ControlError]]]:
    """Connections to all adapters that answer, and the sockets that do not, with the reason.

    Raises `PermissionDenied` for a runtime folder that is not ours alone.
    """
    clients: list[ControlClient] = []
    dead: list[tuple[Path, ControlError]] = []
    for path in control_sockets():
        try:
            clients.append(ControlClient(path, timeout))
        except ControlError as error:
            dead.append((path, error))
    return clients, dead


@contextmanager
def understood(client: ControlClient) -> Iterator[None]:
    """For what only looks at an adapter's answer: one of another shape than it must have is a `ControlError`.

    Nothing else may happen within, or a defect of it would be called the adapter's.
    """
    try:
        yield
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        msgspec.ValidationError,
    ) as error:
        raise ControlError(
            f"the adapter at {client.path} gave an answer that this hba does not understand "
            f"({type(error).__name__}: {error}); use the hba that started it, or see --json"
        ) from error


def object_of(client: ControlClient, answer: object) -> dict[str, Any]:
    """An adapter's answer that must be an object. Raises `ControlError`."""
    with understood(client):
        return msgspec.convert(answer, dict[str, Any])


def connect(name: str | None, timeout: float = 10.0) -> ControlClient:
    """The adapter called `name` (or at that socket path), or the only one that runs.

    Raises `ControlError`, and `PermissionDenied` for a runtime folder that is not ours alone. A path is the user's own
    word for where to go: it is gone to.
    """
    if name is not None:
        sockets = control_sockets() if "/" not in name else []
        if "/" in name or control_path(name) in sockets:
            try:
                return ControlClient(name if "/" in name else control_path(name), timeout)
            except ControlError as error:
                raise ControlError(f"{error}; `hba ls` shows which run") from error
        names = [socket.stem for socket in sockets]
        raise ControlError(f'no adapter "{name}" runs{did_you_mean(name, names)}; `hba ls` shows which run')
    clients, dead = running(timeout)
    if len(clients) == 1:
        return clients[0]
    names = [client.adapter for client in clients]
    for client in clients:
        client.close()
    if names:
        raise ControlError(f"several adapters run ({', '.join(names)}): say which one")
    silent = [error for _, error in dead if not isinstance(error, NobodyThere)]
    if silent:
        raise silent[0]
    hint = f" ({len(dead)} left their sockets there; `hba ls --clean` removes them)" if dead else ""
    raise ControlError(f"no adapter runs: none found in {runtime_dir()}{hint}; start one with `hba serve CONFIG`")
