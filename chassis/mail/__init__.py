"""Mail: templates, SMTP, and refusals of mail servers."""
