"""`python -m app make-resource`: the files and the wiring of a resource, from its fields."""
