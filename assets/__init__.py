"""What exists: Dagster's view of the lineage that dvc.yaml declares."""
