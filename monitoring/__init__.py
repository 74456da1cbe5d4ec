"""What the service says of itself: logs, traces, metrics, health, and whether its images still look as they did."""
