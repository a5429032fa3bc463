"""From messages to a prompt: chat templates, rendered where they can do no harm.

``renderer.Renderer(template, bos_text=..., eos_text=...)`` renders a model's own Jinja template in
a child process bounded in time, memory and output; ``CHATML`` is the template for models that
bring none. The child imports this package, so nothing that the gateway alone needs is here.
"""

from innkeeper.prompt.template import CHATML, ChatTemplate

__all__ = ["CHATML", "ChatTemplate"]
