"""How well it came out: verification, distances between sets of pictures, strips, curves."""
