"""The web page: the loaded model, how to connect, and a simple chat.

``create_ui(generate, models, places)`` makes its ASGI app. The page is plain HTML, CSS and
JavaScript; whatever a model writes is shown as text and never as markup.
"""

from innkeeper.ui.app import OPEN_PATHS, Places, create_ui

__all__ = ["OPEN_PATHS", "Places", "create_ui"]
