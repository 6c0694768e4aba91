package org.hyblink.opensearch;

import java.util.List;
import org.opensearch.plugins.Plugin;
import org.opensearch.plugins.SearchPlugin;

/** What hyblink adds to OpenSearch: the {@code vdr} query. */
public final class HyblinkPlugin extends Plugin implements SearchPlugin {
    @Override
    public List<QuerySpec<?>> getQueries() {
        return List.of(new QuerySpec<>(VdrQueryBuilder.NAME, VdrQueryBuilder::new, VdrQueryBuilder::fromXContent));
    }
}
