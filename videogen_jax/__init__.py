"""VideoGen in JAX: reference-guided latent diffusion for text-to-video (Li et al. 2023, arXiv 2309.00398)."""

__version__ = "0.1.0"
