"""VideoGen (Li et al. 2023, arXiv 2309.00398) in JAX and Flax: reference-guided latent diffusion for text to video."""

from typing import TYPE_CHECKING, Any

from videogen_jax.runtime.version import __version__

if TYPE_CHECKING:
    from videogen_jax.sampling.pipeline import VideoGenPipeline

__all__ = ["VideoGenPipeline", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the pipeline, and JAX with it, when it is first asked for: the entry points need neither to say --help."""
    if name == "VideoGenPipeline":
        from videogen_jax.sampling.pipeline import VideoGenPipeline

        return VideoGenPipeline
    raise AttributeError(f"module {__name__} has no attribute {name}")
