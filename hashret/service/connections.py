"""Connections of slow clients are closed: uvicorn waits for ever for headers, and for a body that nobody reads.

Sending the headers, sending the body and taking the answer have a deadline each, which a byte now and then does not put
off.
"""

from __future__ import annotations

from asyncio import TimerHandle
from asyncio.transports import Transport

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from .limits import BODY_SECONDS

_CONNECTIONS = 512  # at a time, idle ones too; one more gets HTTP's 503
_SHUTDOWN_SECONDS = 5  # for what is being answered when the service ends


class BoundedConnection(H11Protocol):
    """uvicorn's HTTP/1.1 with deadlines, in seconds, beyond which the connection is closed without a word.

    Attributes:
        header_seconds: for the headers of a request, the first from the opening of the connection.
        body_seconds: for its body; a little more than the application waits, which has an answer to give.
        answer_seconds: for the client to take what is ready.
        shutdown_seconds: for what is still being sent when the service ends.
    """

    header_seconds, body_seconds, answer_seconds, shutdown_seconds = 10, BODY_SECONDS + 5, 60, 3
    _state: object = None  # what the client does: a state of h11, or "answer"
    _timer: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._set_deadline()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._set_deadline()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._set_deadline()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._set_deadline()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._set_deadline()

    def shutdown(self) -> None:
        super().shutdown()
        if self._timer:
            self._close_after(self.shutdown_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._close_after(None)
        super().connection_lost(exc)

    def _set_deadline(self) -> None:
        """Set the deadline of what the client does now, where that has changed."""
        state: object = "answer" if self.flow.write_paused else self.conn.their_state
        if state is not self._state:
            self._state = state
            limits: dict[object, float] = {
                h11.IDLE: self.header_seconds,
                h11.SEND_BODY: self.body_seconds,
                "answer": self.answer_seconds,
            }
            self._close_after(limits.get(state))

    def _close_after(self, seconds: float | None) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)


def settings(app: ASGIApp, connection: type[H11Protocol] = BoundedConnection) -> uvicorn.Config:
    """Return a `uvicorn.Config` for the application, with limits of time and number."""
    return uvicorn.Config(
        app, http=connection, ws="none", log_level="warning", access_log=False, server_header=False,
        limit_concurrency=_CONNECTIONS, timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )  # fmt: skip
