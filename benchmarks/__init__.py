"""Measurements with limits: ``make bench NAME=starter``; ``make bench`` alone lists them."""
