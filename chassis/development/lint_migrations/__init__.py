"""What in a migration the running version could not bear, or what blocks writers on MariaDB."""
