package org.hyblink.opensearch;

import java.io.IOException;
import java.util.function.BooleanSupplier;
import org.apache.lucene.index.LeafReader;
import org.apache.lucene.index.LeafReaderContext;
import org.apache.lucene.index.PostingsEnum;
import org.apache.lucene.index.Terms;
import org.apache.lucene.index.TermsEnum;
import org.apache.lucene.search.DocIdSetIterator;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.Query;
import org.apache.lucene.search.ScoreMode;
import org.apache.lucene.search.Scorer;
import org.apache.lucene.search.Weight;
import org.apache.lucene.util.Bits;
import org.apache.lucene.util.BytesRef;
import org.apache.lucene.util.FixedBitSet;
import org.opensearch.core.tasks.TaskCancelledException;

/**
 * In how many passages tokens stand, exactly: deleted ones and those that do not pass a filter are left out. Where a segment has
 * none of these the number is read off the dictionary.
 */
final class Frequencies {
    private final IndexSearcher searcher;
    private final Query filter;
    private final BooleanSupplier stopped;

    Frequencies(IndexSearcher searcher, Query filter, BooleanSupplier stopped) {
        this.searcher = searcher;
        this.filter = filter;
        this.stopped = stopped;
    }

    /** How many passages there are, then how many have each token. */
    long[] of(String field, String[] tokens) throws IOException {
        long[] counts = new long[1 + tokens.length];
        Weight weight = filter == null ? null : searcher.createWeight(searcher.rewrite(filter), ScoreMode.COMPLETE_NO_SCORES, 1f);
        for (LeafReaderContext leaf : searcher.getIndexReader().leaves()) {
            LeafReader reader = leaf.reader();
            FixedBitSet passing = passing(leaf, weight);
            counts[0] += passing == null ? reader.maxDoc() : passing.cardinality();
            Terms terms = reader.terms(field);
            if (terms == null) {
                continue;
            }
            TermsEnum dictionary = terms.iterator();
            PostingsEnum postings = null;
            for (int at = 0; at < tokens.length; at++) {
                if (stopped.getAsBoolean()) {
                    throw new TaskCancelledException("cancelled, or over its time limit");
                }
                if (!dictionary.seekExact(new BytesRef(tokens[at]))) {
                    continue;
                }
                if (passing == null) {
                    counts[1 + at] += dictionary.docFreq();
                    continue;
                }
                postings = dictionary.postings(postings, PostingsEnum.NONE);
                for (int doc = postings.nextDoc(); doc != DocIdSetIterator.NO_MORE_DOCS; doc = postings.nextDoc()) {
                    counts[1 + at] += passing.get(doc) ? 1 : 0;
                }
            }
        }
        return counts;
    }

    /** The documents of a segment that count, or null where all do. */
    private static FixedBitSet passing(LeafReaderContext leaf, Weight weight) throws IOException {
        LeafReader reader = leaf.reader();
        Bits live = reader.getLiveDocs();
        if (live == null && (weight == null || weight.count(leaf) == reader.maxDoc())) {
            return null;
        }
        FixedBitSet passing = new FixedBitSet(reader.maxDoc());
        if (weight == null) {
            passing.set(0, reader.maxDoc());
        } else {
            Scorer scorer = weight.scorer(leaf);
            if (scorer != null) {
                passing.or(scorer.iterator());
            }
        }
        if (live != null) {
            for (int doc = passing.nextSetBit(0); doc != DocIdSetIterator.NO_MORE_DOCS; ) {
                if (!live.get(doc)) {
                    passing.clear(doc);
                }
                doc = doc + 1 < reader.maxDoc() ? passing.nextSetBit(doc + 1) : DocIdSetIterator.NO_MORE_DOCS;
            }
        }
        return passing.cardinality() == reader.maxDoc() ? null : passing;
    }
}
