"""The name of the service; title, cache namespace, token audience and addresses derive from it.

And what the documentation of its API says of it.
"""

# As in docker-compose.yml; lower-case letters, digits and _.
NAME = "bookshelf"
TITLE = NAME.capitalize()
SUMMARY = "A catalogue of books, their authors and how readers rate them."
VERSION = "0.1.0"
# What operations are grouped by, in the order of /docs.
TAGS = {
    # sample: begin
    "books": "The catalogue; anyone may read it, editors may change it",
    "authors": "Those who have written the books",
    "reviews": "What readers think of a book; each has one review of it",
    "rankings": "The books that readers like best",
    "covers": "An image of each book, in three sizes",
    "offers": "What booksellers ask for a book now",
    "dashboard": "All that concerns you, at once",
    # sample: end
    # Of each service.
    "users": "Your account, and the mails that verify its address or reset its password",
    "tokens": "Logging in and out",
    "sessions": "Where you are logged in",
    "keys": "API keys, for machines that act for you",
    "administration": "All accounts, and what has changed about them; for administrators",
    "health": "For load balancers and orchestrators",
}
