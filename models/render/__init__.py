"""Renderers: volumes, manifolds, meshes."""
