"""Raising the frame rate of videos: in latents by the temporal upsampler, in files with their sound and time stamps."""
