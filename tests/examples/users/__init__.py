"""Small programs as users write them, against public names only; type checkers read them at their strictest."""
