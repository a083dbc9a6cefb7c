"""Training shards: crops joined with their labels."""
