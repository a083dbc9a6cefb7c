"""What is learned: pure torch, no files, no dvc, no dagster."""
