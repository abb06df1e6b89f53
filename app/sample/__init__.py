"""The sample's own tools: imports, ISBNs, images, booksellers."""
