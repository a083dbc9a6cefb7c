"""The report: one self-contained page with the pictures, curves, tables, lineage and limits of what was run."""
