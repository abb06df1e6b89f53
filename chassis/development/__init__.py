"""`python -m app serve`: the service with private servers of its own; not for production."""
