"""Parametric models from files that a user supplies."""
