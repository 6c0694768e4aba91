"""Text analysis: tokenisation, stop words, stemming, sentence ends, and a fast path for many texts at once."""
