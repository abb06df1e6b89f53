class Refused(Exception):
    """What was asked for cannot be done; nothing was changed."""
