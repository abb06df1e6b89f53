"""Commands of the service beside those of app/cli.py."""
