"""Floor 4: one module per command; a thin client of the API."""
