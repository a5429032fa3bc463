"""Chat templates, rendered in a child process."""


class Renderer:
    """One template and the process that renders it."""
