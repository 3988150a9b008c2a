"""Data sets in files: read a line at a time, with the file and line of whatever is wrong."""
