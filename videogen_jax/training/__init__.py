"""Train state, step, loop, mesh and sharding rules, checkpoints and metrics writers."""
