package org.hyblink.opensearch;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.apache.lucene.analysis.core.WhitespaceAnalyzer;
import org.apache.lucene.document.Document;
import org.apache.lucene.document.FeatureField;
import org.apache.lucene.document.Field;
import org.apache.lucene.document.LongPoint;
import org.apache.lucene.document.SortedNumericDocValuesField;
import org.apache.lucene.document.TextField;
import org.apache.lucene.index.DirectoryReader;
import org.apache.lucene.index.IndexWriter;
import org.apache.lucene.index.IndexWriterConfig;
import org.apache.lucene.index.Term;
import org.apache.lucene.search.BooleanClause;
import org.apache.lucene.search.BooleanQuery;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.Query;
import org.apache.lucene.search.ScoreDoc;
import org.apache.lucene.search.ScoreMode;
import org.apache.lucene.search.TermQuery;
import org.apache.lucene.store.ByteBuffersDirectory;
import org.junit.jupiter.api.Test;
import org.opensearch.action.ActionRequestValidationException;
import org.opensearch.common.io.stream.BytesStreamOutput;
import org.opensearch.common.xcontent.json.JsonXContent;
import org.opensearch.core.common.ParsingException;
import org.opensearch.core.common.io.stream.StreamInput;
import org.opensearch.core.common.io.stream.Writeable;
import org.opensearch.core.index.shard.ShardId;
import org.opensearch.core.tasks.TaskCancelledException;
import org.opensearch.core.xcontent.DeprecationHandler;
import org.opensearch.core.xcontent.NamedXContentRegistry;
import org.opensearch.core.xcontent.XContentParser;

final class CompletionTests {
    private static final ShardId SHARD = new ShardId("i", "uuid", 0);
    private static final String[] WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa".split(" ");
    private static final int PASSAGES = 400;

    private static Document passage(int number) {
        Random random = new Random(number);
        StringBuilder text = new StringBuilder();
        for (int word = 2 + random.nextInt(30); word > 0; word--) {
            text.append(WORDS[(int) (WORDS.length * Math.pow(random.nextDouble(), 2))]).append(' ');
        }
        Document document = new Document();
        document.add(new TextField("content", text.toString(), Field.Store.NO));
        long row = 10L * number + 7;
        document.add(new LongPoint("row", row));
        document.add(new SortedNumericDocValuesField("row", row));
        document.add(new LongPoint("even", number % 2));
        for (int token = 0; token < 20; token++) {
            if (random.nextBoolean()) {
                document.add(new FeatureField("vdr", Integer.toString(token), 0.5f + random.nextInt(8)));
            }
        }
        return document;
    }

    /** Shards of passages whose number leaves this remainder; several segments, and some deleted ones in each. */
    private static ByteBuffersDirectory shard(int remainder, int shards) throws IOException {
        ByteBuffersDirectory directory = new ByteBuffersDirectory();
        try (IndexWriter writer = new IndexWriter(directory, new IndexWriterConfig(new WhitespaceAnalyzer()))) {
            for (int number = remainder; number < PASSAGES; number += shards) {
                writer.addDocument(passage(number));
                if (number % 90 < shards) {
                    writer.commit();
                }
            }
            writer.forceMergeDeletes();
        }
        return directory;
    }

    private static Query words(String... words) {
        BooleanQuery.Builder query = new BooleanQuery.Builder();
        for (String word : words) {
            query.add(new TermQuery(new Term("content", word)), BooleanClause.Occur.SHOULD);
        }
        return query.build();
    }

    private static List<Query> signals(Random random) {
        String[] tokens = {"1", "13", Integer.toString(2 + random.nextInt(10))};
        return List.of(
            words(WORDS[random.nextInt(10)], WORDS[random.nextInt(10)], "unknown"),
            new VdrQuery("vdr", tokens, new float[] {1f + random.nextInt(4), 70.5f, 0.25f})
        );
    }

    /** What the request is about, with every passage scored in one index that holds them all. */
    @Test
    void everySignalOfEveryCandidateIsExactOnAnyNumberOfShards() throws IOException {
        ExecutorService executor = Executors.newFixedThreadPool(1);
        try (ByteBuffersDirectory whole = shard(0, 1); DirectoryReader all = DirectoryReader.open(whole)) {
            for (int shards = 1; shards <= 3; shards++) {
                List<ByteBuffersDirectory> directories = new ArrayList<>();
                for (int shard = 0; shard < shards; shard++) {
                    directories.add(shard(shard, shards));
                }
                for (int seed = 0; seed < 40; seed++) {
                    Random random = new Random(seed);
                    List<Query> signals = signals(random);
                    Query filter = seed % 3 == 0 ? LongPoint.newExactQuery("even", seed % 2) : null;
                    int size = new int[] {1, 7, 50, 1000, 0}[seed % 5];
                    long[] candidates = random.longs(seed, 0, PASSAGES).map(number -> 10 * number + 7).distinct().toArray();
                    CompleteResponse found = answer(directories, signals, filter, size, candidates, executor);
                    compare(new IndexSearcher(all), signals, filter, size, candidates, found);
                }
                for (ByteBuffersDirectory directory : directories) {
                    directory.close();
                }
            }
        } finally {
            executor.shutdownNow();
        }
    }

    private static CompleteResponse answer(
        List<ByteBuffersDirectory> shards, List<Query> signals, Query filter, int size, long[] candidates, ExecutorService executor
    ) throws IOException {
        Statistics statistics = new Statistics();
        for (ByteBuffersDirectory shard : shards) {
            try (DirectoryReader reader = DirectoryReader.open(shard)) {
                Statistics own = new Statistics();
                IndexSearcher searcher = own.recording(reader);
                for (Query query : signals) {
                    searcher.createWeight(searcher.rewrite(query), ScoreMode.COMPLETE, 1f);
                }
                statistics.add(copy(own, Statistics::new));
            }
        }
        List<CompleteShard.Response> parts = new ArrayList<>();
        for (ByteBuffersDirectory shard : shards) {
            try (DirectoryReader reader = DirectoryReader.open(shard)) {
                IndexSearcher searcher = statistics.scoring(reader);
                Completion part = new Completion(searcher, "row", size, filter, signals, candidates, () -> false);
                parts.add(copy(part.run(SHARD, executor), CompleteShard.Response::new));
            }
        }
        CompleteRequest request = new CompleteRequest("i");
        request.size = size;
        request.candidates = candidates;
        request.names.addAll(List.of("bm25", "vdr"));
        return copy(new CompleteResponse(shards.size(), shards.size(), List.of(), request, parts), CompleteResponse::new);
    }

    private static void compare(
        IndexSearcher searcher, List<Query> signals, Query filter, int size, long[] candidates, CompleteResponse found
    ) throws IOException {
        List<Long> expected = new ArrayList<>();
        for (int signal = 0; signal < signals.size(); signal++) {
            BooleanQuery.Builder query = new BooleanQuery.Builder().add(signals.get(signal), BooleanClause.Occur.MUST);
            if (filter != null) {
                query.add(filter, BooleanClause.Occur.FILTER);
            }
            ScoreDoc[] best = size == 0 ? new ScoreDoc[0] : searcher.search(query.build(), size).scoreDocs; // documents ascend as rows do
            assertEquals(best.length, found.proposed[signal].length);
            for (int rank = 0; rank < best.length; rank++) {
                int at = found.proposed[signal][rank];
                assertEquals(10L * best[rank].doc + 7, found.rows[at]);
                assertEquals(best[rank].score, found.scores[signal][at], 1e-6f * best[rank].score);
                expected.add(found.rows[at]);
            }
            for (int at = 0; at < found.rows.length; at++) {
                float score = (float) searcher.explain(signals.get(signal), (int) (found.rows[at] / 10)).getValue().doubleValue();
                assertEquals(score, found.scores[signal][at], 1e-5f * Math.max(1f, score));
            }
        }
        for (long candidate : candidates) {
            if (filter == null || searcher.explain(filter, (int) (candidate / 10)).isMatch()) {
                expected.add(candidate);
            }
        }
        assertArrayEquals(expected.stream().mapToLong(Long::longValue).sorted().distinct().toArray(), found.rows);
    }

    @Test
    void deletedPassagesAreNeitherProposedNorCompleted() throws IOException {
        try (ByteBuffersDirectory directory = shard(0, 1)) {
            try (IndexWriter writer = new IndexWriter(directory, new IndexWriterConfig(new WhitespaceAnalyzer()))) {
                writer.deleteDocuments(LongPoint.newRangeQuery("row", 0, 10L * 100));
            }
            try (DirectoryReader reader = DirectoryReader.open(directory)) {
                long[] candidates = {7, 17, 10L * 200 + 7};
                Completion part = new Completion(
                    new IndexSearcher(reader), "row", 1000, null, List.of(words("alpha")), candidates, () -> false
                );
                long[] rows = part.run(SHARD, Runnable::run).rows;
                assertTrue(Arrays.stream(rows).allMatch(row -> row > 1000));
                assertTrue(Arrays.binarySearch(rows, 10L * 200 + 7) >= 0);
            }
        }
    }

    @Test
    void frequenciesLeaveOutWhatIsDeletedOrFiltered() throws IOException {
        String[] tokens = {"3", "unknown", "19"};
        try (ByteBuffersDirectory directory = shard(0, 1)) {
            for (boolean deleted : new boolean[] {false, true}) {
                if (deleted) {
                    try (IndexWriter writer = new IndexWriter(directory, new IndexWriterConfig(new WhitespaceAnalyzer()))) {
                        writer.deleteDocuments(LongPoint.newRangeQuery("row", 0, 10L * 100));
                    }
                }
                try (DirectoryReader reader = DirectoryReader.open(directory)) {
                    IndexSearcher searcher = new IndexSearcher(reader);
                    for (Query filter : new Query[] {null, LongPoint.newExactQuery("even", 1), LongPoint.newRangeQuery("row", 0, 1L << 40)}) {
                        long[] counts = new Frequencies(searcher, filter, () -> false).of("vdr", tokens);
                        Query all = filter == null ? LongPoint.newRangeQuery("row", Long.MIN_VALUE, Long.MAX_VALUE) : filter;
                        assertEquals(searcher.count(all), counts[0]);
                        for (int at = 0; at < tokens.length; at++) {
                            Query both = new BooleanQuery.Builder()
                                .add(new VdrQuery("vdr", new String[] {tokens[at]}, new float[] {1f}), BooleanClause.Occur.FILTER)
                                .add(all, BooleanClause.Occur.FILTER)
                                .build();
                            assertEquals(searcher.count(both), counts[1 + at]);
                        }
                    }
                }
            }
        }
        CompleteRequest request = parse("{\"count\": {\"bag\": [7, \"8\"]}}");
        assertNull(request.validate());
        assertEquals("bag", request.counted);
        assertArrayEquals(new String[] {"7", "8"}, copy(request, CompleteRequest::new).tokens);
        assertTrue(parse("{\"count\": {\"bag\": []}}").validate().getMessage().contains("1 to 32768 tokens, got 0"));
        assertTrue(parse("{\"count\": {\"bag\": [1]}, \"size\": 3}").validate().getMessage().contains("nothing but a filter"));
    }

    @Test
    void whatIsStoppedGivesNoAnswer() throws IOException {
        try (ByteBuffersDirectory directory = shard(0, 1); DirectoryReader reader = DirectoryReader.open(directory)) {
            Completion part = new Completion(
                new IndexSearcher(reader), "row", 10, null, List.of(words("alpha"), words("beta")), new long[0], () -> true
            );
            assertThrows(TaskCancelledException.class, () -> part.run(SHARD, Runnable::run));
        }
    }

    @Test
    void aBusyExecutorCostsTimeAndNothingElse() throws IOException {
        try (ByteBuffersDirectory directory = shard(0, 1); DirectoryReader reader = DirectoryReader.open(directory)) {
            List<Query> signals = signals(new Random(1));
            CompleteShard.Response busy = new Completion(new IndexSearcher(reader), "row", 9, null, signals, new long[0], () -> false)
                .run(SHARD, task -> { throw new java.util.concurrent.RejectedExecutionException(); });
            CompleteShard.Response never = new Completion(new IndexSearcher(reader), "row", 9, null, signals, new long[0], () -> false)
                .run(SHARD, task -> {});
            assertArrayEquals(busy.rows, never.rows);
            assertArrayEquals(busy.scores[1], never.scores[1]);
        }
    }

    private static <T extends Writeable> T copy(T one, Writeable.Reader<T> reader) throws IOException {
        BytesStreamOutput out = new BytesStreamOutput();
        one.writeTo(out);
        try (StreamInput in = out.bytes().streamInput()) {
            T read = reader.read(in);
            assertEquals(-1, in.read(), "all that was written is read");
            return read;
        }
    }

    private static CompleteRequest parse(String json) throws IOException {
        try (XContentParser parser = JsonXContent.jsonXContent.createParser(
                NamedXContentRegistry.EMPTY, DeprecationHandler.THROW_UNSUPPORTED_OPERATION, json)) {
            return CompleteRequest.fromXContent(parser, "i");
        }
    }

    @Test
    void requestsAreCheckedBeforeAnyShardIsAsked() throws IOException {
        CompleteRequest request = parse("{\"size\": 5, \"row\": \"n\", \"candidates\": [3, 1], \"limit_ms\": 70, \"own_statistics\": true}");
        assertTrue(request.ownStatistics);
        assertEquals(5, request.size);
        assertEquals("n", request.row);
        assertArrayEquals(new long[] {3, 1}, request.candidates);
        assertEquals(70, request.limitMillis);
        request.names.add("bm25");
        assertNull(request.validate());
        ActionRequestValidationException errors = parse("{\"size\": 10001, \"limit_ms\": 0}").validate();
        assertTrue(errors.getMessage().contains("[size] is 10001, expected 0 to 10000"));
        assertTrue(errors.getMessage().contains("got 0 [signals], expected 1 to 8"));
        assertTrue(errors.getMessage().contains("[limit_ms] is 0"));
        assertTrue(parse("{}").validate().getMessage().contains("neither a [size] above 0 nor [candidates]"));
        assertThrows(ParsingException.class, () -> parse("{\"size\": \"many\"}"));
        assertThrows(ParsingException.class, () -> parse("{\"surprise\": 1}"));
        String many = "[" + "1,".repeat(20_000) + "1]";
        assertTrue(assertThrows(ParsingException.class, () -> parse("{\"candidates\": " + many + "}")).getMessage().contains("20000"));
    }
}
