"""`make bench-growth`: how the cost of a request grows with what there is more of."""
