"""Routes outside the API: health, metrics and the documentation page."""
