"""A page to walk through the steps of a recurrent layer: ``page.py``.

``runs.py`` runs the model, ``equations.py`` writes the lines of the code with their numbers, ``views.py`` packs them.
What displays them: ``page.html``, ``page.css``, ``page.js``, and beside this ``strips.js`` and ``lines.js``."""
from .page import explore

__all__ = ["explore"]
