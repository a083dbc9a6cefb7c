"""One trainer for all systems: data, loop, checkpoints, schedules; the systems plug in as objectives."""
