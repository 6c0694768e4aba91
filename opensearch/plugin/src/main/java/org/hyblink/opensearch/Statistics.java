package org.hyblink.opensearch;

import java.io.IOException;
import java.util.HashMap;
import java.util.Map;
import org.apache.lucene.index.IndexReader;
import org.apache.lucene.index.Term;
import org.apache.lucene.search.CollectionStatistics;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.TermStatistics;
import org.opensearch.core.common.io.stream.StreamInput;
import org.opensearch.core.common.io.stream.StreamOutput;
import org.opensearch.core.common.io.stream.Writeable;

/** What BM25 needs to know of a whole index: how often terms occur, and how much text there is. Summed over shards. */
final class Statistics implements Writeable {
    private final Map<Term, long[]> terms = new HashMap<>();
    private final Map<String, long[]> fields = new HashMap<>();

    Statistics() {}

    Statistics(StreamInput in) throws IOException {
        for (int left = in.readVInt(); left > 0; left--) {
            terms.put(new Term(in.readString(), in.readBytesRef()), in.readVLongArray());
        }
        for (int left = in.readVInt(); left > 0; left--) {
            fields.put(in.readString(), in.readVLongArray());
        }
    }

    @Override
    public void writeTo(StreamOutput out) throws IOException {
        out.writeVInt(terms.size());
        for (Map.Entry<Term, long[]> one : terms.entrySet()) {
            out.writeString(one.getKey().field());
            out.writeBytesRef(one.getKey().bytes());
            out.writeVLongArray(one.getValue());
        }
        out.writeVInt(fields.size());
        for (Map.Entry<String, long[]> one : fields.entrySet()) {
            out.writeString(one.getKey());
            out.writeVLongArray(one.getValue());
        }
    }

    /** Adds those of another shard. */
    void add(Statistics other) {
        other.terms.forEach((term, counts) -> sum(terms, term, counts));
        other.fields.forEach((field, counts) -> sum(fields, field, counts));
    }

    private static <K> void sum(Map<K, long[]> sums, K key, long[] counts) {
        long[] sum = sums.computeIfAbsent(key, unused -> new long[counts.length]);
        for (int at = 0; at < counts.length; at++) {
            sum[at] += counts[at];
        }
    }

    /** A searcher that writes down here what its queries ask about. */
    IndexSearcher recording(IndexReader reader) {
        return new IndexSearcher(reader) {
            @Override
            public TermStatistics termStatistics(Term term, int documents, long occurrences) throws IOException {
                terms.put(term, new long[] { documents, occurrences });
                return super.termStatistics(term, documents, occurrences);
            }

            @Override
            public CollectionStatistics collectionStatistics(String field) throws IOException {
                CollectionStatistics found = super.collectionStatistics(field);
                if (found != null) {
                    fields.put(field, new long[] { found.maxDoc(), found.docCount(), found.sumTotalTermFreq(), found.sumDocFreq() });
                }
                return found;
            }
        };
    }

    /** A searcher that scores by these statistics where it has them. */
    IndexSearcher scoring(IndexReader reader) {
        return new IndexSearcher(reader) {
            @Override
            public TermStatistics termStatistics(Term term, int documents, long occurrences) throws IOException {
                long[] all = terms.get(term);
                return all == null ? super.termStatistics(term, documents, occurrences) : new TermStatistics(term.bytes(), all[0], all[1]);
            }

            @Override
            public CollectionStatistics collectionStatistics(String field) throws IOException {
                long[] all = fields.get(field);
                return all == null ? super.collectionStatistics(field) : new CollectionStatistics(field, all[0], all[1], all[2], all[3]);
            }
        };
    }
}
