"""The 24 root puzzles of `smart_families`, three for each skill, a module per skill."""
