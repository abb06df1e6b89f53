"""Authentication: passwords and their hashes, access tokens, API keys, security events."""
