"""What concurrent calls share: batches, and a limit to how many run at a time."""
