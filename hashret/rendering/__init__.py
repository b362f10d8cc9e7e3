"""Results for people: lines of text, pictures, heat maps over photographs, and HTML pages."""

from ..renamed import forwarding

__getattr__ = forwarding(__name__)
