"""What `deltalens doctor` says."""
