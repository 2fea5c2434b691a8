"""What the AI4Sim use cases share."""
