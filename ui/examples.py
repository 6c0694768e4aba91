"""Questions that the demo's search page offers."""

EXAMPLES = (
    "keep only unique items but keep order",
    "run a command and get what it printed",
    "how do I pause for half a second",
    "json.dumps ensure_ascii",
    "loop over two lists at the same time",
    "why is 0.1 + 0.2 not 0.3",
)
