package org.hyblink.opensearch;

import java.io.IOException;
import java.util.Arrays;
import java.util.Map;
import java.util.TreeMap;
import org.apache.lucene.search.MatchNoDocsQuery;
import org.apache.lucene.search.Query;
import org.opensearch.core.common.ParsingException;
import org.opensearch.core.common.io.stream.StreamInput;
import org.opensearch.core.common.io.stream.StreamOutput;
import org.opensearch.core.xcontent.XContentBuilder;
import org.opensearch.core.xcontent.XContentParser;
import org.opensearch.index.mapper.MappedFieldType;
import org.opensearch.index.query.AbstractQueryBuilder;
import org.opensearch.index.query.QueryShardContext;

/** {@code {"vdr": {"field": "bag", "weights": {"1037": 2.1, "2054": 0.7}}}}: a sparse dot product by token id. */
public final class VdrQueryBuilder extends AbstractQueryBuilder<VdrQueryBuilder> {
    static final String NAME = "vdr";
    /** More tokens than any vocabulary's sensible query; a bound on what one request may cost. */
    static final int MAX_TOKENS = 32_768;

    private static final String FIELD_TYPE = "rank_features";

    private final String field;
    private final String[] tokens;
    private final float[] weights;

    /** Weights by token id. Raises IllegalArgumentException for weights that are not finite and above 0. */
    VdrQueryBuilder(String field, Map<String, Float> weights) {
        if (field == null || field.isEmpty()) {
            throw new IllegalArgumentException("[vdr] needs [field], the name of a rank_features field");
        }
        if (weights == null || weights.isEmpty() || weights.size() > MAX_TOKENS) {
            throw new IllegalArgumentException(
                "[vdr] needs [weights] of 1 to " + MAX_TOKENS + " tokens, got " + (weights == null ? "none" : weights.size())
            );
        }
        this.field = field;
        this.tokens = new String[weights.size()];
        this.weights = new float[weights.size()];
        int at = 0;
        for (Map.Entry<String, Float> one : new TreeMap<>(weights).entrySet()) {
            float weight = one.getValue();
            if (!Float.isFinite(weight) || weight <= 0f) {
                throw new IllegalArgumentException(
                    "[vdr] the weight of token [" + one.getKey() + "] is " + weight + ", expected a finite number above 0"
                );
            }
            this.tokens[at] = one.getKey();
            this.weights[at++] = weight;
        }
    }

    VdrQueryBuilder(StreamInput in) throws IOException {
        super(in);
        field = in.readString();
        tokens = in.readStringArray();
        weights = in.readFloatArray();
    }

    @Override
    protected void doWriteTo(StreamOutput out) throws IOException {
        out.writeString(field);
        out.writeStringArray(tokens);
        out.writeFloatArray(weights);
    }

    static VdrQueryBuilder fromXContent(XContentParser parser) throws IOException {
        String field = null;
        Map<String, Float> weights = null;
        String queryName = null;
        float boost = DEFAULT_BOOST;
        String key = null;
        for (XContentParser.Token token = parser.nextToken(); token != XContentParser.Token.END_OBJECT; token = parser.nextToken()) {
            if (token == XContentParser.Token.FIELD_NAME) {
                key = parser.currentName();
            } else if (token == XContentParser.Token.START_OBJECT && "weights".equals(key)) {
                weights = weights(parser);
            } else if (token.isValue() && "field".equals(key)) {
                field = parser.text();
            } else if (token.isValue() && "boost".equals(key)) {
                boost = parser.floatValue();
            } else if (token.isValue() && "_name".equals(key)) {
                queryName = parser.text();
            } else {
                throw new ParsingException(
                    parser.getTokenLocation(), "[vdr] does not know [" + key + "] as " + token + "; expected field, weights, boost, _name"
                );
            }
        }
        try {
            return new VdrQueryBuilder(field, weights).boost(boost).queryName(queryName);
        } catch (IllegalArgumentException error) {
            throw new ParsingException(parser.getTokenLocation(), error.getMessage(), error);
        }
    }

    private static Map<String, Float> weights(XContentParser parser) throws IOException {
        Map<String, Float> weights = new TreeMap<>();
        String key = null;
        for (XContentParser.Token token = parser.nextToken(); token != XContentParser.Token.END_OBJECT; token = parser.nextToken()) {
            if (token == XContentParser.Token.FIELD_NAME) {
                key = parser.currentName();
                continue;
            }
            if (token != XContentParser.Token.VALUE_NUMBER) {
                throw new ParsingException(parser.getTokenLocation(), "[vdr] the weight of token [" + key + "] is no number");
            }
            weights.put(key, parser.floatValue());
            if (weights.size() > MAX_TOKENS) {
                throw new ParsingException(parser.getTokenLocation(), "[vdr] takes at most " + MAX_TOKENS + " tokens");
            }
        }
        return weights;
    }

    @Override
    protected void doXContent(XContentBuilder builder, Params params) throws IOException {
        builder.startObject(NAME).field("field", field).startObject("weights");
        for (int at = 0; at < tokens.length; at++) {
            builder.field(tokens[at], weights[at]);
        }
        builder.endObject();
        printBoostAndQueryName(builder);
        builder.endObject();
    }

    @Override
    protected Query doToQuery(QueryShardContext context) {
        MappedFieldType type = context.fieldMapper(field);
        if (type == null) {
            return new MatchNoDocsQuery("no field [" + field + "]");
        }
        if (!FIELD_TYPE.equals(type.typeName())) {
            throw new IllegalArgumentException(
                "[vdr] needs a " + FIELD_TYPE + " field, [" + field + "] is of type [" + type.typeName() + "]"
            );
        }
        return new VdrQuery(type.name(), tokens, weights);
    }

    @Override
    protected boolean doEquals(VdrQueryBuilder other) {
        return field.equals(other.field) && Arrays.equals(tokens, other.tokens) && Arrays.equals(weights, other.weights);
    }

    @Override
    protected int doHashCode() {
        return 31 * (31 * field.hashCode() + Arrays.hashCode(tokens)) + Arrays.hashCode(weights);
    }

    @Override
    public String getWriteableName() {
        return NAME;
    }
}
