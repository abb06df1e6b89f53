"""What the commands of development need; the production image has no folder of this name."""
