"""How the parts talk: in one process, and over HTTPS."""
