"""Accounts: who they are, how they log in, what they are told by mail."""
