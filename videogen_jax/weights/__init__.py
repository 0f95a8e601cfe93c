"""Models on disk: folders and their index, public checkpoints in and out, tokenizers, scheduler configs and the hub."""
