"""The «depot» service: «parcels»."""
