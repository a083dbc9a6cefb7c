"""Loss functions, one family a file."""
