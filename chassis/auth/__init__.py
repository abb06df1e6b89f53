"""Authentication: passwords and their hashes, access tokens, security events."""
