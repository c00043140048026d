"""What ``project.py`` is made of: plain, frozen declarations that do nothing when made."""
