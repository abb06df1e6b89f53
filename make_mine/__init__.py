"""`make mine`: gives the service its own name, and removes the sample. Removes itself, too.

It needs nothing but Python's standard library and git.
"""
