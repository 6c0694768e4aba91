package org.hyblink.opensearch;

import java.io.IOException;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executor;
import java.util.concurrent.FutureTask;
import java.util.concurrent.RejectedExecutionException;
import java.util.function.BooleanSupplier;
import org.apache.lucene.document.LongPoint;
import org.apache.lucene.index.DocValues;
import org.apache.lucene.index.LeafReaderContext;
import org.apache.lucene.index.SortedNumericDocValues;
import org.apache.lucene.search.BooleanClause;
import org.apache.lucene.search.BooleanQuery;
import org.apache.lucene.search.DocIdSetIterator;
import org.apache.lucene.search.FieldDoc;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.Query;
import org.apache.lucene.search.ScoreDoc;
import org.apache.lucene.search.ScoreMode;
import org.apache.lucene.search.Scorer;
import org.apache.lucene.search.Sort;
import org.apache.lucene.search.SortField;
import org.apache.lucene.search.SortedNumericSortField;
import org.apache.lucene.search.TopFieldCollectorManager;
import org.apache.lucene.search.TwoPhaseIterator;
import org.apache.lucene.search.Weight;
import org.opensearch.core.index.shard.ShardId;
import org.opensearch.core.tasks.TaskCancelledException;

/** One shard's part: each signal's best passages, then every signal's score of all of them and of the candidates. */
final class Completion {
    private final IndexSearcher searcher;
    private final String row;
    private final int size;
    private final Query filter;
    private final List<Query> signals;
    private final long[] candidates;
    private final BooleanSupplier stopped;
    private volatile boolean abandoned;

    /** Signals and filter as Lucene's queries; {@code stopped} says that nobody waits any more. */
    Completion(
        IndexSearcher searcher,
        String row,
        int size,
        Query filter,
        List<Query> signals,
        long[] candidates,
        BooleanSupplier stopped
    ) {
        this.searcher = searcher;
        this.row = row;
        this.size = size;
        this.filter = filter;
        this.signals = signals;
        this.candidates = candidates;
        this.stopped = () -> abandoned || stopped.getAsBoolean();
    }

    /** Signals are searched side by side on the executor, as far as it has threads to spare; this thread does the rest. */
    CompleteShard.Response run(ShardId shard, Executor executor) throws IOException {
        searcher.setTimeout(stopped::getAsBoolean);
        List<FutureTask<ScoreDoc[]>> legs = signals.stream().map(query -> new FutureTask<>(() -> best(query))).toList();
        for (FutureTask<ScoreDoc[]> leg : legs.subList(1, legs.size())) {
            try {
                executor.execute(leg);
            } catch (RejectedExecutionException busy) {
                break; // nothing is lost: whoever waits runs it
            }
        }
        ScoreDoc[][] best = new ScoreDoc[signals.size()][];
        try {
            for (int signal = 0; signal < best.length; signal++) {
                legs.get(signal).run(); // does nothing where another thread has begun it
                best[signal] = result(legs.get(signal));
            }
        } catch (IOException | RuntimeException error) {
            end(legs);
            throw error;
        }
        int[] docs = union(best);
        long[] rows = rows(docs);
        float[][] scores = new float[best.length][];
        int[][] proposed = new int[best.length][];
        for (int signal = 0; signal < best.length; signal++) {
            check();
            scores[signal] = scores(signals.get(signal), docs);
            proposed[signal] = new int[best[signal].length];
            for (int at = 0; at < best[signal].length; at++) {
                int place = Arrays.binarySearch(docs, best[signal][at].doc);
                scores[signal][place] = score(best[signal][at]);
                proposed[signal][at] = place;
            }
        }
        return new CompleteShard.Response(shard, rows, scores, proposed);
    }

    /** The searcher is released after this: no leg may still use it, or begin to. */
    private void end(List<FutureTask<ScoreDoc[]>> legs) {
        abandoned = true;
        for (FutureTask<ScoreDoc[]> leg : legs) {
            leg.run();
            try {
                result(leg);
            } catch (IOException | RuntimeException ended) {
                continue; // whoever waits hears of the first failure
            }
        }
    }

    private static ScoreDoc[] result(FutureTask<ScoreDoc[]> leg) throws IOException {
        try {
            return leg.get();
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
            throw new TaskCancelledException("interrupted");
        } catch (ExecutionException error) {
            if (error.getCause() instanceof IOException cause) {
                throw cause;
            }
            if (error.getCause() instanceof RuntimeException cause) {
                throw cause;
            }
            throw new IllegalStateException(error.getCause());
        }
    }

    private static float score(ScoreDoc found) {
        return (Float) ((FieldDoc) found).fields[0];
    }

    private void check() {
        if (stopped.getAsBoolean()) {
            throw new TaskCancelledException("cancelled, or over its time limit");
        }
    }

    private ScoreDoc[] best(Query query) throws IOException {
        check();
        if (size == 0) {
            return new ScoreDoc[0];
        }
        BooleanQuery.Builder among = new BooleanQuery.Builder().add(query, BooleanClause.Occur.MUST);
        if (filter != null) {
            among.add(filter, BooleanClause.Occur.FILTER);
        }
        Sort sort = new Sort(SortField.FIELD_SCORE, new SortedNumericSortField(row, SortField.Type.LONG));
        ScoreDoc[] found = searcher.search(among.build(), new TopFieldCollectorManager(sort, size, null, 1)).scoreDocs;
        check(); // a search that was stopped answers with what it has: that is no answer
        return found;
    }

    /** Documents that some signal proposes, and the candidates' own that pass the filter; ascending, each once. */
    private int[] union(ScoreDoc[][] best) throws IOException {
        int[] given = documents();
        int count = given.length;
        for (ScoreDoc[] some : best) {
            count += some.length;
        }
        int[] docs = Arrays.copyOf(given, count);
        int at = given.length;
        for (ScoreDoc[] some : best) {
            for (ScoreDoc one : some) {
                docs[at++] = one.doc;
            }
        }
        return Arrays.stream(docs).sorted().distinct().toArray();
    }

    private int[] documents() throws IOException {
        if (candidates.length == 0) {
            return new int[0];
        }
        BooleanQuery.Builder wanted = new BooleanQuery.Builder().add(LongPoint.newSetQuery(row, candidates), BooleanClause.Occur.FILTER);
        if (filter != null) {
            wanted.add(filter, BooleanClause.Occur.FILTER);
        }
        Weight weight = searcher.createWeight(searcher.rewrite(wanted.build()), ScoreMode.COMPLETE_NO_SCORES, 1f);
        int[] docs = new int[candidates.length];
        int count = 0;
        for (LeafReaderContext leaf : searcher.getIndexReader().leaves()) {
            check();
            Scorer scorer = weight.scorer(leaf);
            if (scorer == null) {
                continue;
            }
            DocIdSetIterator found = scorer.iterator();
            for (int doc = found.nextDoc(); doc != DocIdSetIterator.NO_MORE_DOCS; doc = found.nextDoc()) {
                if (leaf.reader().getLiveDocs() == null || leaf.reader().getLiveDocs().get(doc)) {
                    if (count == docs.length) {
                        throw new IllegalArgumentException("the values of [" + row + "] are not distinct");
                    }
                    docs[count++] = leaf.docBase + doc;
                }
            }
        }
        return Arrays.copyOf(docs, count);
    }

    private long[] rows(int[] docs) throws IOException {
        long[] rows = new long[docs.length];
        int at = 0;
        for (LeafReaderContext leaf : searcher.getIndexReader().leaves()) {
            int end = leaf.docBase + leaf.reader().maxDoc();
            if (at == docs.length || docs[at] >= end) {
                continue;
            }
            SortedNumericDocValues values = DocValues.getSortedNumeric(leaf.reader(), row);
            for (; at < docs.length && docs[at] < end; at++) {
                if (!values.advanceExact(docs[at] - leaf.docBase)) {
                    throw new IllegalArgumentException("a document has no value of [" + row + "]");
                }
                rows[at] = values.nextValue();
            }
        }
        return rows;
    }

    private float[] scores(Query query, int[] docs) throws IOException {
        float[] scores = new float[docs.length];
        Weight weight = searcher.createWeight(searcher.rewrite(query), ScoreMode.COMPLETE, 1f);
        int at = 0;
        for (LeafReaderContext leaf : searcher.getIndexReader().leaves()) {
            int end = leaf.docBase + leaf.reader().maxDoc();
            if (at == docs.length || docs[at] >= end) {
                continue;
            }
            Scorer scorer = weight.scorer(leaf);
            TwoPhaseIterator doubtful = scorer == null ? null : scorer.twoPhaseIterator();
            DocIdSetIterator matches = scorer == null ? DocIdSetIterator.empty() : doubtful == null ? scorer.iterator() : doubtful.approximation();
            for (; at < docs.length && docs[at] < end; at++) {
                int doc = docs[at] - leaf.docBase;
                int found = matches.docID() < doc ? matches.advance(doc) : matches.docID();
                if (found == doc && (doubtful == null || doubtful.matches())) {
                    scores[at] = scorer.score();
                }
            }
        }
        return scores;
    }
}
