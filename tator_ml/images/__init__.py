"""Pictures: fetched with limits, kept by content, decoded as the annotator's browser shows them."""
