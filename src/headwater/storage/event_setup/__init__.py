"""What to make in a cloud account so that a bucket tells Headwater what happens in it."""
