"""Use cases in weather forecasting."""
