"""Pictures and videos: which arrays they are, and how they are encoded."""
