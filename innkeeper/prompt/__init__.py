"""From messages to a prompt: chat templates, rendered where they can do no harm.

``Renderer(template, bos_text=..., eos_text=...)`` renders a model's own Jinja template in a
child process bounded in time, memory and output; ``CHATML`` is the template for models that
bring none.
"""

from innkeeper.prompt.renderer import Renderer
from innkeeper.prompt.template import CHATML, ChatTemplate

__all__ = ["CHATML", "ChatTemplate", "Renderer"]
