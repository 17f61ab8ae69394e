"""Programs as a user would write them; each has a `main` and says what it does."""
