"""The supervisor in Python, part by part: the standard library alone, and of it only what starts fast."""
