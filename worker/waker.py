"""Waits for whichever comes first: another thread that wakes, a notification, or time."""

import selectors
import socket


class Waker:
    """One thread waits; any other, and a signal handler, may wake it."""

    def __init__(self) -> None:
        self._waits = False
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._sender.setblocking(False)

    def wake(self) -> None:
        """End the wait that is under way, if one is."""
        if self._waits:
            self._waits = False
            self._sender.send(b"\0")

    def announce_wait(self) -> None:
        """Say that wait follows. What the thread looks at from now on, it does not miss."""
        self._waits = True

    def wait(self, seconds: float, descriptor: int | None = None) -> bool:
        """Wait for so many seconds at most; return whether the descriptor has something to read."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._receiver, selectors.EVENT_READ)
            if descriptor is not None:
                selector.register(descriptor, selectors.EVENT_READ, "descriptor")
            ready = selector.select(max(seconds, 0.0))
        self._waits = False
        try:
            while self._receiver.recv(1024):
                pass
        except BlockingIOError:
            pass
        return any(key.data == "descriptor" for key, _ in ready)
