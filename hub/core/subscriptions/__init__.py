"""Subscriptions with a name: where they are, and who reads for them."""
