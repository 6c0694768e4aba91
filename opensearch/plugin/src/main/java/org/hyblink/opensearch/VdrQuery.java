package org.hyblink.opensearch;

import java.io.IOException;
import java.util.Arrays;
import org.apache.lucene.document.FeatureField;
import org.apache.lucene.search.BooleanClause;
import org.apache.lucene.search.BooleanQuery;
import org.apache.lucene.search.BoostQuery;
import org.apache.lucene.search.FilterWeight;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.Query;
import org.apache.lucene.search.QueryVisitor;
import org.apache.lucene.search.ScoreMode;
import org.apache.lucene.search.Weight;

/**
 * The dot product of a query's token weights and the weights that a passage has in a features field.
 *
 * <p>The tokens are scored by Lucene's own disjunction, which skips blocks of postings whose best possible sum cannot
 * reach the page. It takes any number of tokens: they are grouped below the limit on the clauses of one Boolean query,
 * and what counts nested clauses sees one leaf.
 */
final class VdrQuery extends Query {
    private static final int GROUP = 512;

    private final String field;
    private final String[] tokens;
    private final float[] weights;

    /** Tokens and their weights, in the same order; every weight is finite and above 0. */
    VdrQuery(String field, String[] tokens, float[] weights) {
        if (tokens.length != weights.length) {
            throw new IllegalArgumentException(tokens.length + " tokens, but " + weights.length + " weights");
        }
        this.field = field;
        this.tokens = tokens;
        this.weights = weights;
    }

    /**
     * Up to three quarters of the clause limit it becomes the disjunction itself: Lucene then merges it with the filters
     * around it, and skips blocks under them, which it cannot do for a query that it does not know.
     */
    @Override
    public Query rewrite(IndexSearcher searcher) throws IOException {
        return tokens.length <= IndexSearcher.getMaxClauseCount() / 4 * 3 ? group(0, tokens.length) : super.rewrite(searcher);
    }

    @Override
    public Weight createWeight(IndexSearcher searcher, ScoreMode scoreMode, float boost) throws IOException {
        return new FilterWeight(this, disjunction().createWeight(searcher, scoreMode, boost)) {};
    }

    private BooleanQuery disjunction() {
        int group = Math.min(GROUP, IndexSearcher.getMaxClauseCount());
        if (tokens.length <= group) {
            return group(0, tokens.length);
        }
        BooleanQuery.Builder all = new BooleanQuery.Builder();
        for (int start = 0; start < tokens.length; start += group) {
            all.add(group(start, Math.min(start + group, tokens.length)), BooleanClause.Occur.SHOULD);
        }
        return all.build();
    }

    private BooleanQuery group(int start, int end) {
        BooleanQuery.Builder some = new BooleanQuery.Builder();
        for (int at = start; at < end; at++) {
            // The factory of a linear feature query takes no weight above 64; a boost is the same product.
            Query feature = FeatureField.newLinearQuery(field, tokens[at], 1f);
            some.add(new BoostQuery(feature, weights[at]), BooleanClause.Occur.SHOULD);
        }
        return some.build();
    }

    @Override
    public void visit(QueryVisitor visitor) {
        if (visitor.acceptField(field)) {
            visitor.visitLeaf(this);
        }
    }

    @Override
    public String toString(String defaultField) {
        return "vdr(" + field + ", " + tokens.length + " tokens)";
    }

    @Override
    public boolean equals(Object other) {
        return sameClassAs(other)
            && field.equals(((VdrQuery) other).field)
            && Arrays.equals(tokens, ((VdrQuery) other).tokens)
            && Arrays.equals(weights, ((VdrQuery) other).weights);
    }

    @Override
    public int hashCode() {
        return 31 * (31 * (31 * classHash() + field.hashCode()) + Arrays.hashCode(tokens)) + Arrays.hashCode(weights);
    }
}
