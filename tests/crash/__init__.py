"""Tests that kill the driver."""
