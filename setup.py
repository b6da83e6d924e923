"""Packaging; see README.md."""

import pathlib

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Puts configs/ into what is installed; an editable install has the project's folder itself."""

    def finalize_options(self):
        super().finalize_options()
        if not self.editable_mode:
            # In a folder that holds nothing else, since it comes onto the path: see paths.PROJECT.
            name = "furs_jax.project.configs"
            self.packages = [*self.packages, name]
            self.package_dir = {**self.package_dir, name: "configs"}


setup(
    name="furs_jax",
    version="0.1.0",
    description="Channel search for convolutional networks by FLOPs utilisation ratios, in JAX",
    long_description=pathlib.Path(__file__).with_name("README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    # So that an editable install puts this folder on the path. Otherwise a script beside a clone
    # named furs_jax would import that folder, as a namespace, in place of the package in it.
    package_dir={"": "."},
    packages=find_packages(include=["furs_jax", "furs_jax.*"]),
    cmdclass={"build_py": BuildWithConfigs},
    package_data={"furs_jax.report": ["page.css", "published.json"]},
    # Lower bounds are the versions that were tested; see docs/REFERENCE.md.
    install_requires=[
        "absl-py>=2.5",
        "chex>=0.1.92",
        "flax>=0.12",
        "jax>=0.10.2",
        "ml_collections>=1.1",
        "numpy>=2.4",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12",
        "scikit-learn>=1.9",  # digits, stratified splits
        "scipy>=1.17",
        "tensorflow-datasets>=4.9.10",
        "tqdm>=4.70",
    ],
    extras_require={
        "tpu": ["jax[tpu]"],
        "cuda12": ["jax[cuda12]"],
        "cuda13": ["jax[cuda13]"],
        # Reads TFDS sets in ArrayRecord form without TensorFlow.
        # importlib_resources: TFDS 4.9.10 prepares nothing without it, and doesn't ask for it.
        "tfds": ["array_record>=0.8", "importlib_resources>=6", "pillow>=12"],
        # Reads images from disk, as of ImageNet. Sets in memory need none of it.
        "images": [
            "grain>=0.2.18",
            "opencv-python-headless>=5.0",  # resizes
            "pillow>=12",
            "simplejpeg>=1.9",  # decodes
        ],
        # Figures of `python -m furs_jax.report`.
        "report": ["matplotlib>=3.10"],
        # Event files of `python -m furs_jax.report RUN --tensorboard=DIR`; no TensorFlow.
        "tensorboard": ["tensorboardX>=2.6.5"],
        # What `python -m furs_jax.export` writes, and runs to see that it is right.
        "export": ["onnx>=1.23", "onnxruntime>=1.32", "safetensors>=0.8"],
        "test": [
            "hypothesis>=6.100",
            "import-linter>=2.17",
            "ipykernel>=7.0",
            "nbclient>=0.10",
            "nbformat>=5.10",
            "pytest>=9.0,<9.2",  # with 9.2, xdist 3.8 runs a group on several workers
            "pytest-xdist>=3.8",
            "ruff>=0.17",
        ],
    },
)
