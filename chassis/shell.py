"""`python -m app shell`: a Python prompt that understands `await`."""

import ast
import code
import inspect
import sys
from collections.abc import Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from types import CodeType, FunctionType
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal
from sqlalchemy import select

from chassis.resources import open_resources
from chassis.service_settings import ChassisSettings


def open_shell(settings: ChassisSettings, names: Mapping[str, Any]) -> None:
    """Returns at the end of the input. Raises SystemExit after `exit()`."""
    sys.excepthook = sys.__excepthook__  # Typer's shows the frames of this module too
    exited: SystemExit | None = None
    with (
        start_blocking_portal("asyncio", {"use_uvloop": True}) as portal,
        portal.wrap_async_context_manager(open_resources(settings)) as resources,
    ):
        opened = {
            "settings": settings,
            "resources": resources,
            **{name: resources[name] for name in ("sessions", "cache", "redis")},
            "select": select,
        }
        known = {**names, **opened}
        banner = f"{settings.service} {settings.version}, with await. " + ", ".join(opened)
        _complete(known)
        try:
            Console(known, portal).interact(f"{banner}; models and services by name.", "")
        except SystemExit as error:
            exited = error  # raised here, it would end the loop that is to close the resources
    if exited is not None:
        raise exited


class Console(code.InteractiveConsole):
    """Reads in the main thread, where Ctrl-C arrives; runs all code in the event loop's thread."""

    def __init__(self, names: dict[str, Any], portal: BlockingPortal) -> None:
        super().__init__({"__name__": "__console__", **names})
        self.compile.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self.portal = portal

    def runcode(self, code: CodeType) -> None:
        running = self.portal.start_task_soon(self._run, code)
        try:
            exited = running.result()
        except KeyboardInterrupt:
            running.cancel()
            with suppress(CancelledError):
                running.result()
            self.write("\nKeyboardInterrupt\n")
            return
        if exited is not None:
            raise exited

    async def _run(self, code: CodeType) -> SystemExit | None:
        try:
            result = FunctionType(code, self.locals)()
            if inspect.iscoroutine(result):
                await result
        except SystemExit as error:
            return error
        except Exception:
            self.showtraceback()
        return None


def _complete(names: dict[str, Any]) -> None:
    """Lines are edited and names completed, where Python has readline."""
    if not sys.stdin.isatty():
        return
    with suppress(ImportError):
        import readline
        import rlcompleter

        readline.set_completer(rlcompleter.Completer(names).complete)
        readline.parse_and_bind("tab: complete")
