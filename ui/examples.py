"""Example queries of the search page and example texts of the linking page."""

EXAMPLES = (
    "keep only unique items but keep order",
    "run a command and get what it printed",
    "how do I pause for half a second",
    "json.dumps ensure_ascii",
    "loop over two lists at the same time",
    "why is 0.1 + 0.2 not 0.3",
)

LINK_EXAMPLES = (
    "Write it with dump and read it back with json.",
    "Use gzip: its open gives a file object that decompresses as it reads.",
)
