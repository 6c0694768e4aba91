package org.hyblink.opensearch;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.util.HashMap;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;
import org.apache.lucene.analysis.core.WhitespaceAnalyzer;
import org.apache.lucene.document.Document;
import org.apache.lucene.document.FeatureField;
import org.apache.lucene.index.DirectoryReader;
import org.apache.lucene.index.IndexWriter;
import org.apache.lucene.index.IndexWriterConfig;
import org.apache.lucene.search.Explanation;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.ScoreDoc;
import org.apache.lucene.search.TopDocs;
import org.apache.lucene.store.ByteBuffersDirectory;
import org.junit.jupiter.api.Test;
import org.opensearch.common.io.stream.BytesStreamOutput;
import org.opensearch.common.xcontent.XContentType;
import org.opensearch.common.xcontent.json.JsonXContent;
import org.opensearch.core.common.ParsingException;
import org.opensearch.core.common.bytes.BytesReference;
import org.opensearch.core.xcontent.DeprecationHandler;
import org.opensearch.core.xcontent.NamedXContentRegistry;
import org.opensearch.core.xcontent.ToXContent;
import org.opensearch.core.xcontent.XContentBuilder;
import org.opensearch.core.xcontent.XContentParser;

final class VdrQueryTests {
    private static final int VOCABULARY = 4000;

    private static float stored(float weight) {
        return Float.intBitsToFloat(Float.floatToIntBits(weight) & 0xFFFF8000);
    }

    @Test
    void scoresAreDotProductsWhateverTheNumberOfTokens() throws IOException {
        Random random = new Random(3);
        float[][] passages = new float[300][VOCABULARY];
        try (ByteBuffersDirectory directory = new ByteBuffersDirectory()) {
            try (IndexWriter writer = new IndexWriter(directory, new IndexWriterConfig(new WhitespaceAnalyzer()))) {
                for (int passage = 0; passage < passages.length; passage++) {
                    Document document = new Document();
                    for (int one = 0; one < 120; one++) {
                        int token = random.nextInt(VOCABULARY);
                        if (passages[passage][token] == 0f) {
                            float weight = stored(0.01f + random.nextFloat() * 3f);
                            passages[passage][token] = weight;
                            document.add(new FeatureField("vdr", Integer.toString(token), weight));
                        }
                    }
                    writer.addDocument(document);
                    if (passage % 100 == 99) {
                        writer.commit();
                    }
                }
            }
            try (DirectoryReader reader = DirectoryReader.open(directory)) {
                IndexSearcher searcher = new IndexSearcher(reader);
                for (int count : new int[] {1, 32, 512, 513, 1500, 3900}) {
                    Map<String, Float> weights = new HashMap<>();
                    while (weights.size() < count) {
                        weights.put(Integer.toString(random.nextInt(VOCABULARY)), random.nextFloat() * 100f + 0.001f);
                    }
                    check(searcher, passages, weights, 10);
                    check(searcher, passages, weights, 300);
                }
            }
        }
    }

    private static void check(IndexSearcher searcher, float[][] passages, Map<String, Float> weights, int size) throws IOException {
        VdrQuery query = query(weights);
        TopDocs found = searcher.search(query, size);
        double[] expected = new double[passages.length];
        for (int passage = 0; passage < passages.length; passage++) {
            for (Map.Entry<String, Float> one : weights.entrySet()) {
                expected[passage] += one.getValue() * passages[passage][Integer.parseInt(one.getKey())];
            }
        }
        double[] sorted = expected.clone();
        java.util.Arrays.sort(sorted);
        for (int rank = 0; rank < found.scoreDocs.length; rank++) {
            ScoreDoc hit = found.scoreDocs[rank];
            assertEquals(expected[hit.doc], hit.score, 1e-4 * Math.max(1.0, expected[hit.doc]));
            assertEquals(sorted[sorted.length - 1 - rank], hit.score, 1e-4 * Math.max(1.0, hit.score));
        }
        if (found.scoreDocs.length > 0) {
            Explanation explanation = searcher.explain(query, found.scoreDocs[0].doc);
            assertTrue(explanation.isMatch());
            assertEquals(found.scoreDocs[0].score, explanation.getValue().floatValue(), 1e-3 * found.scoreDocs[0].score);
        }
    }

    private static VdrQuery query(Map<String, Float> weights) {
        TreeMap<String, Float> ordered = new TreeMap<>(weights);
        float[] values = new float[ordered.size()];
        int at = 0;
        for (float value : ordered.values()) {
            values[at++] = value;
        }
        return new VdrQuery("vdr", ordered.keySet().toArray(new String[0]), values);
    }

    @Test
    void equalQueriesAreOneCacheEntryAndOthersAreNot() {
        assertEquals(query(Map.of("1", 2f)), query(Map.of("1", 2f)));
        assertEquals(query(Map.of("1", 2f)).hashCode(), query(Map.of("1", 2f)).hashCode());
        assertNotEquals(query(Map.of("1", 2f)), query(Map.of("1", 3f)));
        assertNotEquals(query(Map.of("1", 2f)), query(Map.of("2", 2f)));
    }

    private static VdrQueryBuilder parse(String json) throws IOException {
        try (XContentParser parser = JsonXContent.jsonXContent.createParser(
                NamedXContentRegistry.EMPTY, DeprecationHandler.THROW_UNSUPPORTED_OPERATION, json)) {
            parser.nextToken();
            return VdrQueryBuilder.fromXContent(parser);
        }
    }

    @Test
    void itTravelsBetweenNodesAndThroughJson() throws IOException {
        VdrQueryBuilder one = parse("{\"field\": \"bag\", \"weights\": {\"7\": 1.5, \"3\": 2}, \"boost\": 2.0, \"_name\": \"q\"}");
        BytesStreamOutput out = new BytesStreamOutput();
        one.writeTo(out);
        assertEquals(one, new VdrQueryBuilder(out.bytes().streamInput()));
        XContentBuilder builder = XContentBuilder.builder(XContentType.JSON.xContent());
        one.toXContent(builder, ToXContent.EMPTY_PARAMS);
        String json = BytesReference.bytes(builder).utf8ToString();
        assertEquals(one, parse(json.substring("{\"vdr\":".length(), json.length() - 1)));
    }

    @Test
    void badRequestsSayWhatWasExpected() {
        assertTrue(failure("{\"weights\": {\"1\": 1}}").contains("needs [field]"));
        assertTrue(failure("{\"field\": \"f\"}").contains("1 to 32768 tokens"));
        assertTrue(failure("{\"field\": \"f\", \"weights\": {}}").contains("1 to 32768 tokens"));
        assertTrue(failure("{\"field\": \"f\", \"weights\": {\"1\": -1}}").contains("above 0"));
        assertTrue(failure("{\"field\": \"f\", \"weights\": {\"1\": 1e39}}").contains("finite"));
        assertTrue(failure("{\"field\": \"f\", \"weights\": {\"1\": \"x\"}}").contains("no number"));
        assertTrue(failure("{\"field\": \"f\", \"tokens\": [1]}").contains("expected field, weights"));
    }

    private static String failure(String json) {
        return assertThrows(ParsingException.class, () -> parse(json)).getMessage();
    }
}
