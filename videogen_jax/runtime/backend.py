"""Whether JAX can be used here at all."""

import os


def check_backend() -> None:
    """Find the devices.

    Raises:
      ValueError: JAX has none: a platform that it was told to use is not there, or has no driver.
    """
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX raises the latter where it has nothing to say
        named = jax.config.jax_platforms
        variable = "JAX_PLATFORMS is" if os.environ.get("JAX_PLATFORMS") else "jax_platforms is"
        wanted = f"{variable} {named!r}, but " if named else ""
        reason = f" ({error})" if str(error) else ""
        raise ValueError(
            f"{wanted}JAX finds no such device{reason}: name another platform, such as cpu, or install JAX for this "
            "one and its driver (pip install 'videogen_jax[gpu]' or '[tpu]')"
        ) from error
