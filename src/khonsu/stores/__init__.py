"""Stores: what is remembered. In memory, or in a SQLite file; peewee and sqlite3 are imported nowhere else."""
