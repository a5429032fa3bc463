"""Chat templates, in this process. ``renderer`` runs them where they can do no harm."""

CHATML = "{% for message in messages %}{{ message.content }}{% endfor %}"


class ChatTemplate:
    """A compiled template."""
