"""Building blocks of request and response schemas: strict bodies, texts, pages."""
