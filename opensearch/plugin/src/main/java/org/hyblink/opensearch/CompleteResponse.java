package org.hyblink.opensearch;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.opensearch.action.support.broadcast.BroadcastResponse;
import org.opensearch.core.action.support.DefaultShardOperationFailedException;
import org.opensearch.core.common.io.stream.StreamInput;
import org.opensearch.core.common.io.stream.StreamOutput;
import org.opensearch.core.xcontent.XContentBuilder;

/** The passages of all shards: rows ascending, each with every signal's score, and each signal's proposals, best first. */
public final class CompleteResponse extends BroadcastResponse {
    private final String[] names;
    final Statistics statistics;
    /** How many passages pass the filter, then how many of them have each token; empty where nothing was counted. */
    final long[] counts;
    final long[] rows;
    final float[][] scores;
    /** Positions in {@code rows}, for each signal: best first, ties by ascending row. */
    final int[][] proposed;

    CompleteResponse(
        int total,
        int successful,
        List<DefaultShardOperationFailedException> failures,
        CompleteRequest request,
        List<CompleteShard.Response> shards
    ) {
        super(total, successful, failures.size(), failures);
        names = request.names.toArray(String[]::new);
        statistics = request.collecting ? new Statistics() : null;
        counts = new long[request.counted == null ? 0 : 1 + request.tokens.length];
        if (request.collecting || request.counted != null) {
            for (CompleteShard.Response shard : shards) {
                if (request.collecting) {
                    statistics.add(shard.statistics);
                }
                for (int at = 0; at < counts.length; at++) {
                    counts[at] += shard.counts[at];
                }
            }
            rows = new long[0];
            scores = new float[0][];
            proposed = new int[0][];
            return;
        }
        Merger merger = new Merger(names.length, request.size, request.candidates, shards);
        rows = merger.rows;
        scores = merger.scores;
        proposed = merger.proposed;
    }

    CompleteResponse(StreamInput in) throws IOException {
        super(in);
        names = in.readStringArray();
        statistics = in.readOptionalWriteable(Statistics::new);
        counts = in.readVLongArray();
        rows = in.readLongArray();
        scores = in.readArray(StreamInput::readFloatArray, float[][]::new);
        proposed = in.readArray(StreamInput::readVIntArray, int[][]::new);
    }

    @Override
    public void writeTo(StreamOutput out) throws IOException {
        super.writeTo(out);
        out.writeStringArray(names);
        out.writeOptionalWriteable(statistics);
        out.writeVLongArray(counts);
        out.writeLongArray(rows);
        out.writeArray(StreamOutput::writeFloatArray, scores);
        out.writeArray(StreamOutput::writeVIntArray, proposed);
    }

    @Override
    protected void addCustomXContentFields(XContentBuilder builder, Params params) throws IOException {
        if (counts.length > 0) {
            builder.field("passages", counts[0]).array("counts", Arrays.copyOfRange(counts, 1, counts.length));
            return;
        }
        builder.array("rows", rows);
        builder.startObject("scores");
        for (int at = 0; at < scores.length; at++) {
            builder.array(names[at], scores[at]);
        }
        builder.endObject().startObject("proposed");
        for (int at = 0; at < proposed.length; at++) {
            builder.array(names[at], proposed[at]);
        }
        builder.endObject();
    }

    /** Keeps each signal's best of all shards, and the candidates; everything else a shard proposed is left out. */
    private static final class Merger {
        final long[] rows;
        final float[][] scores;
        final int[][] proposed;

        Merger(int signals, int size, long[] candidates, List<CompleteShard.Response> shards) {
            int total = shards.stream().mapToInt(shard -> shard.rows.length).sum();
            long[] allRows = new long[total];
            float[][] allScores = new float[signals][total];
            List<List<Integer>> best = new ArrayList<>();
            for (int signal = 0; signal < signals; signal++) {
                best.add(new ArrayList<>());
            }
            int start = 0;
            for (CompleteShard.Response shard : shards) {
                System.arraycopy(shard.rows, 0, allRows, start, shard.rows.length);
                for (int signal = 0; signal < signals; signal++) {
                    System.arraycopy(shard.scores[signal], 0, allScores[signal], start, shard.rows.length);
                    for (int at : shard.proposed[signal]) {
                        best.get(signal).add(start + at);
                    }
                }
                start += shard.rows.length;
            }
            boolean[] kept = new boolean[total];
            for (int signal = 0; signal < signals; signal++) {
                float[] own = allScores[signal];
                List<Integer> ranked = best.get(signal);
                ranked.sort((a, b) -> own[a] == own[b] ? Long.compare(allRows[a], allRows[b]) : Float.compare(own[b], own[a]));
                if (ranked.size() > size) {
                    ranked.subList(size, ranked.size()).clear();
                }
                ranked.forEach(at -> kept[at] = true);
            }
            long[] asked = candidates.clone();
            Arrays.sort(asked);
            List<Integer> order = new ArrayList<>();
            for (int at = 0; at < total; at++) {
                if (kept[at] || Arrays.binarySearch(asked, allRows[at]) >= 0) {
                    order.add(at);
                }
            }
            order.sort((a, b) -> Long.compare(allRows[a], allRows[b]));
            int[] place = new int[total];
            rows = new long[order.size()];
            scores = new float[signals][order.size()];
            for (int at = 0; at < rows.length; at++) {
                int from = order.get(at);
                place[from] = at;
                rows[at] = allRows[from];
                for (int signal = 0; signal < signals; signal++) {
                    scores[signal][at] = allScores[signal][from];
                }
            }
            proposed = new int[signals][];
            for (int signal = 0; signal < signals; signal++) {
                proposed[signal] = best.get(signal).stream().mapToInt(at -> place[at]).toArray();
            }
        }
    }
}
