"""Drivers, and what keeps their processes alive without the agent."""

from __future__ import annotations
