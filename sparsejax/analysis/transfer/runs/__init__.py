"""What trains: features, linear and full fine-tuning, their cost, and studies of many runs."""
