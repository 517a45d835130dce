"""The tables of the study: how they are loaded and encoded."""
