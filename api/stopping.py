"""The end of the process: who waits, or streams, is told of it before the server waits for them."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@asynccontextmanager
async def stopping() -> AsyncIterator[asyncio.Event]:
    """Yield an event that is set once the process has been told to stop.

    A server that is told so finishes all responses, and only then ends the lifespan: too late for
    a response that goes on until then. So its signal handlers are called by handlers of our own.
    """
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    handlers: dict[signal.Signals, Any] = {}
    told: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        told.append(number)
        loop.call_soon_threadsafe(event.set)
        handlers[signal.Signals(number)](number, frame)

    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):
                handlers[number] = handler
                signal.signal(number, stop)
    try:
        yield event
    finally:
        event.set()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if signal.SIGTERM in told:
            # Uvicorn ends by sending itself the signal once more, without a handler. What has been
            # done in order is to have the exit status 0.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
