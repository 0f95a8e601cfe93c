"""Package metadata. Lower bounds are versions that the test suite was run with."""

from pathlib import Path

from setuptools import find_packages, setup

# With the libtpu that this JAX names: a newer one took four times as long to compile for a pod.
TPU = ["jax[tpu]>=0.10.2"]
SERVE = ["fastapi>=0.165", "uvicorn>=0.54"]

setup(
    name="videogen_jax",
    version="0.1.0",
    description="VideoGen (arXiv 2309.00398) in JAX/Flax: reference-guided latent diffusion for text-to-video",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.11",
    packages=find_packages(include=["videogen_jax", "videogen_jax.*", "configs", "configs.*"]),
    package_data={"videogen_jax": ["embedded/**/*", "studio/page/*", "studio/*.css", "metrics/*.css", "metrics/*.js"]},
    install_requires=[
        "absl-py>=2.5",
        "array_record>=0.8.6",
        "av>=18.0",
        "flatbuffers>=25.12",
        "flax>=0.12.8",
        "grain>=0.2.18",
        "huggingface_hub>=2.4",
        "jax>=0.10.2",
        "matplotlib>=3.11",
        "ml_collections>=1.1",
        "ml_dtypes>=0.5",
        "numpy>=2.4",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8",
        "pebble>=5.2.3",
        "pillow>=13.0",
        "rich>=15.0",
        "safetensors>=0.8",
        "scipy>=1.17",
        "tensorboardX>=2.6.5",
        "tensorflow-datasets>=4.9.10",
        "tokenizers>=0.23",
        "transformers>=5.23",
    ],
    extras_require={
        "serve": SERVE,
        "test": [
            *SERVE,
            "diffusers>=0.40",
            "httpx2>=2.16",
            "ipykernel>=7.4",
            "nbclient>=0.11",
            "nbformat>=5.11",
            "playwright>=1.65",
            "psutil>=7.2",
            "pytest>=9.2",
            "pytest-xdist>=3.8",
            "ruff>=0.17",
            "scikit-image>=0.26",
            "tensorboard>=2.21",
            "torch==2.13.0",
        ],
        "aot": TPU,
        "gpu": ["jax[cuda13]>=0.10.2"],
        "tpu": TPU,
    },
)
