"""What the OpenAPI document lacks, and what of its changes since a commit would break clients."""
