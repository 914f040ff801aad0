"""What happened, in order: events with the clock's time."""
