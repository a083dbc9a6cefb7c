"""What each system minimises: one module a system, each an implementation of `ops.train.objective.Objective`."""
