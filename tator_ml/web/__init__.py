"""The web process: Label Studio's wire and the live strip. It holds no models and never imports torch."""
