"""What a form costs in an implementation on a device, and the plan that follows."""
