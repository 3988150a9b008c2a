"""Where learning keeps its things under home: one place that knows the paths."""

from __future__ import annotations

from tator_ml.images.store import ImageStore
from tator_ml.learning.embeddings import EmbeddingCache
from tator_ml.learning.examples import Examples
from tator_ml.learning.registry import HeadRegistry
from tator_ml.projects import Projects
from tator_sdk.settings import Settings


def image_store(settings: Settings) -> ImageStore:
    """Pictures by content hash."""
    return ImageStore(settings.home / "images", settings.image_store_bytes)


def embedding_cache(settings: Settings) -> EmbeddingCache:
    """Embeddings of boxes; one for each process."""
    return EmbeddingCache(settings.home / "embeddings", settings.embedding_cache_bytes)


def example_store(settings: Settings) -> Examples:
    """Labelled boxes of every project."""
    return Examples(settings.home / "examples.sqlite")


def project_choices(settings: Settings) -> Projects:
    """Choices of projects."""
    return Projects(settings.home / "projects", settings.segmenter)


def head_registry(settings: Settings) -> HeadRegistry:
    """Every head that was made."""
    return HeadRegistry(settings.home / "heads", project_choices(settings))
