"""What is done: one module a stage, each a plain command."""
