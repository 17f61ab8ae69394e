"""The schedulers that come with Khonsu, each a small class; `khonsu.schedulers.registry` finds them by name."""
