"""Transactions over one or several databases: who decides, and what happens when somebody dies."""
