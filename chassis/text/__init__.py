"""Text: its normal form, words for full-text search, e-mail addresses."""
