"""What people clicked and judged, and what a click model makes of it."""
