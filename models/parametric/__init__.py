"""Parametric heads and bodies behind one interface."""
