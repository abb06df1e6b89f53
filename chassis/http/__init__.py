"""Middleware, routes, bodies, cached responses, preconditions and the OpenAPI document."""
