"""Sets Innkeeper up in ``.venv``; run by ``./start``. Standard library only."""
