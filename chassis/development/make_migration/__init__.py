"""`python -m app make-migration`: what has changed in the models, as a migration."""
