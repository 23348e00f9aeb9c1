"""What is drawn of results over time, in TensorBoard and the like."""
