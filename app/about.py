"""The name of the service; title, cache namespace, token audience and addresses derive from it."""

# As in docker-compose.yml; lower-case letters, digits and _.
NAME = "bookshelf"
TITLE = NAME.capitalize()
SUMMARY = "A catalogue of books, their authors and how readers rate them."
VERSION = "0.1.0"
