package org.hyblink.opensearch;

import java.io.IOException;
import java.util.List;
import org.opensearch.core.common.Strings;
import org.opensearch.core.xcontent.XContentParser;
import org.opensearch.rest.BaseRestHandler;
import org.opensearch.rest.RestRequest;
import org.opensearch.rest.action.RestCancellableNodeClient;
import org.opensearch.rest.action.RestToXContentListener;
import org.opensearch.transport.client.node.NodeClient;

/** {@code POST /{index}/_hyblink/complete}. */
final class RestCompleteAction extends BaseRestHandler {
    @Override
    public String getName() {
        return "hyblink_complete";
    }

    @Override
    public List<Route> routes() {
        return List.of(new Route(RestRequest.Method.POST, "/{index}/_hyblink/complete"));
    }

    @Override
    protected RestChannelConsumer prepareRequest(RestRequest request, NodeClient client) throws IOException {
        CompleteRequest asked;
        try (XContentParser parser = request.contentParser()) {
            asked = CompleteRequest.fromXContent(parser, Strings.splitStringByCommaToArray(request.param("index")));
        }
        return channel -> new RestCancellableNodeClient(client, request.getHttpChannel()).execute(
            TransportCompleteAction.TYPE,
            asked,
            new RestToXContentListener<>(channel)
        );
    }
}
