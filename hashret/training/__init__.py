"""Training an encoder: `hashret train`, its settings, its loop, and what the loop reads."""

from ..renamed import forwarding

__getattr__ = forwarding(__name__)
