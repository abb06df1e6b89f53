"""`make bench` and `make bench-parts`: this service beside others, on the same servers."""
