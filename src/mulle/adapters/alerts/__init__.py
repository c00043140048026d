"""Receivers of alerts: chat, mail, pagers and plain HTTP, by URL."""
