"""What every stage shares: parameters, progress, atomic publishing, parallel work."""
