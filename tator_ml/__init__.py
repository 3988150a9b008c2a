"""The backend: Label Studio's wire (`web`) in front of the models and their warm pictures (`engine`)."""
