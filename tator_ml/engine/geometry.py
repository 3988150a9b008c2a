from tator_sdk.geometry import *  # noqa: F403
