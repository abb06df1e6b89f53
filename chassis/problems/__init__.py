"""Errors as responses: RFC 9457 problems, of bounded size."""
