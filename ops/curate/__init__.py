"""Curation: each step looks at what the step before kept, and says why it rejects a sample."""
