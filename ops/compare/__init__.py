"""Two runs or two data versions side by side: what changed, and what of it is more than noise."""
