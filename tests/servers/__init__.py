"""Real servers for tests, on loopback: each says how to reach it and counts what it sent.

Fixtures are in `fixtures`; a test directory gets them by importing them in its conftest.
"""
