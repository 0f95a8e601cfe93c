"""Public checkpoints in and out: tensor names and layouts (`naming`), folders on disk (`folder`)."""
