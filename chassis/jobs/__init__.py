"""How a job gets from a transaction to a worker: the outbox, a table of the database."""
