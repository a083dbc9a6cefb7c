"""Raw pictures: every kind of source ends in the same immutable shards with provenance."""
