"""The demo: the whole loop on the flights of 2013, from an empty folder to a report."""
