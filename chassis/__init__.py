"""What every service needs and none is about: processes, HTTP, cache, database, jobs, telemetry.

It never imports `app`, the service that it carries, so a clone takes in a newer chassis by
replacing this folder.
"""
