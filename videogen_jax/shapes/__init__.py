"""The world of moving shapes, the embedded data set: rendered clips, their captions, and a reader of pixels."""
