"""How pictures and labels lie on disk: WebDataset tars and Parquet tables."""
