"""POST requests with an `Idempotency-Key`, and the responses that are kept for them."""
