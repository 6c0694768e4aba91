"""Late-interaction rerankers (ColBERT style): query token vectors are compared with passage token vectors."""
