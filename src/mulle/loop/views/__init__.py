"""What people and programs are shown: pure readings of the records."""
