package org.hyblink.opensearch;

import static org.opensearch.action.ValidateActions.addValidationError;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.opensearch.action.ActionRequestValidationException;
import org.opensearch.action.support.broadcast.BroadcastRequest;
import org.opensearch.core.common.ParsingException;
import org.opensearch.core.common.io.stream.StreamInput;
import org.opensearch.core.common.io.stream.StreamOutput;
import org.opensearch.core.tasks.TaskId;
import org.opensearch.core.xcontent.XContentParser;
import org.opensearch.index.query.AbstractQueryBuilder;
import org.opensearch.index.query.QueryBuilder;
import org.opensearch.tasks.Task;

/**
 * What is asked: the best {@code size} passages by each signal among those that pass the filter, and every signal's exact score
 * of all of these and of the {@code candidates} that somebody else proposes. With size 0, of the candidates alone.
 */
public final class CompleteRequest extends BroadcastRequest<CompleteRequest> {
    static final int MAX_SIZE = 10_000;
    static final int MAX_CANDIDATES = 20_000;
    static final int MAX_SIGNALS = 8;

    /** The long field that names a passage; its values are distinct. */
    String row = "row";
    int size;
    QueryBuilder filter;
    final List<String> names = new ArrayList<>();
    final List<QueryBuilder> queries = new ArrayList<>();
    long[] candidates = {};
    /** How long a shard may search, in milliseconds. */
    long limitMillis = 30_000;
    /** Whether each shard scores by its own statistics, as query_then_fetch does. */
    boolean ownStatistics;
    /** The features field whose tokens are counted, in how many of the passages that pass the filter each stands; or null. */
    String counted;
    String[] tokens = {};
    /** Whether shards are asked for their statistics instead of passages. */
    boolean collecting;
    /** The statistics of all shards; null where each shard's own are to be used. */
    Statistics statistics;

    CompleteRequest(String... indices) {
        super(indices);
    }

    CompleteRequest(StreamInput in) throws IOException {
        super(in);
        row = in.readString();
        size = in.readVInt();
        filter = in.readOptionalNamedWriteable(QueryBuilder.class);
        names.addAll(in.readStringList());
        queries.addAll(in.readNamedWriteableList(QueryBuilder.class));
        candidates = in.readLongArray();
        limitMillis = in.readVLong();
        ownStatistics = in.readBoolean();
        counted = in.readOptionalString();
        tokens = in.readStringArray();
        collecting = in.readBoolean();
        statistics = in.readOptionalWriteable(Statistics::new);
    }

    @Override
    public void writeTo(StreamOutput out) throws IOException {
        super.writeTo(out);
        out.writeString(row);
        out.writeVInt(size);
        out.writeOptionalNamedWriteable(filter);
        out.writeStringCollection(names);
        out.writeNamedWriteableList(queries);
        out.writeLongArray(candidates);
        out.writeVLong(limitMillis);
        out.writeBoolean(ownStatistics);
        out.writeOptionalString(counted);
        out.writeStringArray(tokens);
        out.writeBoolean(collecting);
        out.writeOptionalWriteable(statistics);
    }

    /** The same question, asked for the statistics that its queries need. */
    CompleteRequest forStatistics() {
        CompleteRequest asked = new CompleteRequest(indices());
        asked.indicesOptions(indicesOptions());
        asked.row = row;
        asked.size = size;
        asked.names.addAll(names);
        asked.queries.addAll(queries);
        asked.limitMillis = limitMillis;
        asked.collecting = true;
        return asked;
    }

    static CompleteRequest fromXContent(XContentParser parser, String... indices) throws IOException {
        CompleteRequest request = new CompleteRequest(indices);
        String key = null;
        parser.nextToken();
        for (XContentParser.Token token = parser.nextToken(); token != XContentParser.Token.END_OBJECT; token = parser.nextToken()) {
            if (token == XContentParser.Token.FIELD_NAME) {
                key = parser.currentName();
            } else if (token == XContentParser.Token.VALUE_NUMBER && "size".equals(key)) {
                request.size = parser.intValue();
            } else if (token == XContentParser.Token.VALUE_NUMBER && "limit_ms".equals(key)) {
                request.limitMillis = parser.longValue();
            } else if (token == XContentParser.Token.VALUE_BOOLEAN && "own_statistics".equals(key)) {
                request.ownStatistics = parser.booleanValue();
            } else if (token == XContentParser.Token.VALUE_STRING && "row".equals(key)) {
                request.row = parser.text();
            } else if (token == XContentParser.Token.START_OBJECT && "filter".equals(key)) {
                request.filter = AbstractQueryBuilder.parseInnerQueryBuilder(parser);
            } else if (token == XContentParser.Token.START_OBJECT && "signals".equals(key)) {
                while (parser.nextToken() != XContentParser.Token.END_OBJECT) {
                    request.names.add(parser.currentName());
                    parser.nextToken();
                    request.queries.add(AbstractQueryBuilder.parseInnerQueryBuilder(parser));
                }
            } else if (token == XContentParser.Token.START_OBJECT && "count".equals(key)) {
                while (parser.nextToken() != XContentParser.Token.END_OBJECT) {
                    request.counted = parser.currentName();
                    parser.nextToken();
                    request.tokens = parser.list().stream().map(String::valueOf).toArray(String[]::new);
                }
            } else if (token == XContentParser.Token.START_ARRAY && "candidates".equals(key)) {
                request.candidates = longs(parser);
            } else {
                throw new ParsingException(
                    parser.getTokenLocation(),
                    "[complete] does not know [" + key + "] as " + token + "; expected size, row, filter, signals, candidates, count, limit_ms, own_statistics"
                );
            }
        }
        return request;
    }

    private static long[] longs(XContentParser parser) throws IOException {
        List<Long> found = new ArrayList<>();
        while (parser.nextToken() != XContentParser.Token.END_ARRAY) {
            found.add(parser.longValue());
            if (found.size() > MAX_CANDIDATES) {
                throw new ParsingException(parser.getTokenLocation(), "[complete] takes at most " + MAX_CANDIDATES + " candidates");
            }
        }
        return found.stream().mapToLong(Long::longValue).toArray();
    }

    @Override
    public ActionRequestValidationException validate() {
        ActionRequestValidationException errors = super.validate();
        if (size < 0 || size > MAX_SIZE) {
            errors = addValidationError("[size] is " + size + ", expected 0 to " + MAX_SIZE, errors);
        }
        if (counted != null) {
            if (tokens.length == 0 || tokens.length > VdrQueryBuilder.MAX_TOKENS || size > 0 || names.size() + candidates.length > 0) {
                errors = addValidationError(
                    "[count] takes 1 to " + VdrQueryBuilder.MAX_TOKENS + " tokens, got " + tokens.length + ", and nothing but a filter beside it",
                    errors
                );
            }
            return errors;
        }
        if (size == 0 && candidates.length == 0 && !collecting) {
            errors = addValidationError("neither a [size] above 0 nor [candidates] are given", errors);
        }
        if (names.isEmpty() || names.size() > MAX_SIGNALS) {
            errors = addValidationError("got " + names.size() + " [signals], expected 1 to " + MAX_SIGNALS, errors);
        }
        if (limitMillis < 1) {
            errors = addValidationError("[limit_ms] is " + limitMillis + ", expected at least 1", errors);
        }
        return errors;
    }

    @Override
    public Task createTask(long id, String type, String action, TaskId parent, Map<String, String> headers) {
        return new StoppableTask(id, type, action, "complete " + String.join(",", names), parent, headers);
    }
}
