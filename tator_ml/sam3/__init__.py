"""SAM 3: finding, loading and keeping its models."""
