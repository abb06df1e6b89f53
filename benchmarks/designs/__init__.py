"""Other services with the routes of ours, to compare with: benchmarks/comparison starts them.

All of them read the same MariaDB and Valkey, and skip their cache for `Cache-Control: no-store`.
"""
