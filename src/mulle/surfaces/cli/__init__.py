"""The command line: parse, call, render; no rules. The entry is `mulle.surfaces.cli.main:main`."""
