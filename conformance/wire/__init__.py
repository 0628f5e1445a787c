"""What was said on the wire: exchanges, their journal, and how to show them without their secrets."""
