"""Processes side by side: none left behind, each behind whoever clicks, one log."""
