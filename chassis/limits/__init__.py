"""Rate limits, load shedding, and limits for request bodies that are being received."""
