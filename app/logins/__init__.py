"""Limits of logins: wrong passwords, by account and network, and sessions of an account."""
