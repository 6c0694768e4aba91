package org.hyblink.opensearch;

import java.io.IOException;
import java.util.Map;
import org.opensearch.action.support.broadcast.BroadcastShardRequest;
import org.opensearch.action.support.broadcast.BroadcastShardResponse;
import org.opensearch.core.common.io.stream.StreamInput;
import org.opensearch.core.common.io.stream.StreamOutput;
import org.opensearch.core.index.shard.ShardId;
import org.opensearch.core.tasks.TaskId;
import org.opensearch.tasks.Task;

/** What passes between the coordinating node and a shard. */
final class CompleteShard {
    private CompleteShard() {}

    static final class Request extends BroadcastShardRequest {
        final CompleteRequest asked;

        Request(ShardId shard, CompleteRequest asked) {
            super(shard, asked);
            this.asked = asked;
        }

        Request(StreamInput in) throws IOException {
            super(in);
            asked = new CompleteRequest(in);
        }

        @Override
        public void writeTo(StreamOutput out) throws IOException {
            super.writeTo(out);
            asked.writeTo(out);
        }

        @Override
        public Task createTask(long id, String type, String action, TaskId parent, Map<String, String> headers) {
            return new StoppableTask(id, type, action, "complete on " + shardId(), parent, headers);
        }
    }

    /** Either statistics, or counts, or passages: rows ascending, each with its scores, and which of them each signal proposes. */
    static final class Response extends BroadcastShardResponse {
        final Statistics statistics;
        /** How many passages pass the filter, then how many of them have each token; empty where nothing was counted. */
        final long[] counts;
        final long[] rows;
        final float[][] scores;
        final int[][] proposed;

        Response(ShardId shard, Statistics statistics, long[] counts) {
            super(shard);
            this.statistics = statistics;
            this.counts = counts;
            this.rows = new long[0];
            this.scores = new float[0][];
            this.proposed = new int[0][];
        }

        Response(ShardId shard, long[] rows, float[][] scores, int[][] proposed) {
            super(shard);
            this.statistics = null;
            this.counts = new long[0];
            this.rows = rows;
            this.scores = scores;
            this.proposed = proposed;
        }

        Response(StreamInput in) throws IOException {
            super(in);
            statistics = in.readOptionalWriteable(Statistics::new);
            counts = in.readVLongArray();
            rows = in.readLongArray();
            scores = in.readArray(StreamInput::readFloatArray, float[][]::new);
            proposed = in.readArray(StreamInput::readVIntArray, int[][]::new);
        }

        @Override
        public void writeTo(StreamOutput out) throws IOException {
            super.writeTo(out);
            out.writeOptionalWriteable(statistics);
            out.writeVLongArray(counts);
            out.writeLongArray(rows);
            out.writeArray(StreamOutput::writeFloatArray, scores);
            out.writeArray(StreamOutput::writeVIntArray, proposed);
        }
    }
}
