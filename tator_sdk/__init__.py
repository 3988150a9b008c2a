"""The laptop side: settings, regions, Label Studio and the `tator` command; no torch."""
