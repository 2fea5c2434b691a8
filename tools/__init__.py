"""Machinery of the repository itself."""
