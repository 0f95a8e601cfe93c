"""Raising the frame rate of video files with the temporal upsampler, including their sound and time stamps."""
