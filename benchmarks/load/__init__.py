"""`make load`: users with pauses between their requests, in stages, by locust."""
