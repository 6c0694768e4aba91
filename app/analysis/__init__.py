"""Text to terms: word breaks, stemming, stop words, and a compiled table for many texts at once."""
