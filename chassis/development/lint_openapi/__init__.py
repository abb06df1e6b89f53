"""What of the OpenAPI document has changed since a commit, and would break its clients."""
