"""What a home keeps: backups, erasure, clean-up, and whether it is well."""
