"""Networks of the limited-area use case."""
