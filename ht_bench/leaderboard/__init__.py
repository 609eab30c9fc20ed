"""Submissions: written, verified, ranked and shown. No torch here."""
