"""The agent: makes the allocations of one node real, and says what has become of them."""
