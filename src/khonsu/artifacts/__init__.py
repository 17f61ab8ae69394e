"""Artifacts: files by URL that tasks need; fetched once, checked, cached, and placed into a task's directory."""

from __future__ import annotations

from khonsu.artifacts.cache import CachedArtifact
from khonsu.artifacts.store import ArtifactStore

__all__ = ["ArtifactStore", "CachedArtifact"]
