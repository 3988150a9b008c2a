"""Where learning keeps its things under home: one place that knows the paths."""

from __future__ import annotations

from tator_ml.images.store import ImageStore
from tator_ml.learning.embeddings import EmbeddingCache
from tator_ml.learning.examples import Examples
from tator_ml.learning.registry import HeadRegistry
from tator_ml.projects import Projects, project_choices
from tator_sdk.settings import Settings

__all__ = ["embedding_cache", "example_store", "head_registry", "image_store", "project_choices"]


def image_store(settings: Settings) -> ImageStore:
    """Pictures by content hash."""
    return ImageStore(settings.home / "images", settings.image_store_bytes)


def embedding_cache(settings: Settings) -> EmbeddingCache:
    """Embeddings of boxes; one for each process."""
    return EmbeddingCache(settings.home / "embeddings", settings.embedding_cache_bytes)


def example_store(settings: Settings) -> Examples:
    """Labelled boxes of every project."""
    return Examples(settings.home / "examples.sqlite")


def head_registry(settings: Settings, projects: Projects | None = None) -> HeadRegistry:
    """Every head that was made; ``projects`` are the choices of a process that has read them already."""
    return HeadRegistry(settings.home / "heads", projects or project_choices(settings))
