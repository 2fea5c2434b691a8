"""Limited-area weather forecasting."""
