"""A sampler run from noise to samples, for the tests of samplers."""

from functools import partial

from videogen_jax.diffusion.samplers import make_sampler, sample_loop


def sample(denoise, schedule, noise, num_steps, sampler="ddim", **fields):
    """Samples `(B, ...)` after all steps of the sampler with that name."""
    sampler = make_sampler(sampler, schedule, **fields)
    return sample_loop(partial(sampler.step, denoise), sampler.start(noise), sampler.coefficients(num_steps)).x
