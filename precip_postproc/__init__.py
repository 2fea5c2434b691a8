"""Use cases in the post-processing of precipitation forecasts."""
