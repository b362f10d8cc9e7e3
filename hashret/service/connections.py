"""Connections whose other end is slow are closed: uvicorn waits for ever for headers, and for a body without a reader.

A deadline stands for each thing that the client does, sending headers, sending a body, taking an answer, and a byte now
and then does not put it off.
"""

from __future__ import annotations

import h11
import uvicorn
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
    _doing, _timer = None, None

    def connection_made(self, transport):
        super().connection_made(transport)
        self._look()

    def data_received(self, data):
        super().data_received(data)
        self._look()

    def on_response_complete(self):
        super().on_response_complete()
        self._look()

    def pause_writing(self):
        super().pause_writing()
        self._look()

    def resume_writing(self):
        super().resume_writing()
        self._look()

    def shutdown(self):
        super().shutdown()
        if self._timer:
            self._close_after(self.shutdown_seconds)

    def connection_lost(self, exc):
        self._close_after(None)
        super().connection_lost(exc)

    def _look(self):
        """Set the deadline of what the client is at now, where that is something new."""
        doing = "answer" if self.flow.write_paused else self.conn.their_state
        if doing is not self._doing:
            self._doing = doing
            limits = {h11.IDLE: self.header_seconds, h11.SEND_BODY: self.body_seconds, "answer": self.answer_seconds}
            self._close_after(limits.get(doing))

    def _close_after(self, seconds):
        if self._timer:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)


def settings(app, connection=BoundedConnection):
    """A `uvicorn.Config` for the application, with limits of time and number."""
    return uvicorn.Config(
        app, http=connection, ws="none", log_level="warning", access_log=False, server_header=False,
        limit_concurrency=_CONNECTIONS, timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )  # fmt: skip
