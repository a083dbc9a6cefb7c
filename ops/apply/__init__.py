"""Trained systems put to use."""
