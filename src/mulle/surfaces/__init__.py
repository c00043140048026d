"""The faces: command line, HTTP, Python; they parse, call and render, and hold no rules."""
