package org.hyblink.opensearch;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReferenceArray;
import java.util.function.BooleanSupplier;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.Query;
import org.apache.lucene.search.ScoreMode;
import org.opensearch.action.ActionType;
import org.opensearch.action.support.ActionFilters;
import org.opensearch.action.support.broadcast.BroadcastShardOperationFailedException;
import org.opensearch.action.support.broadcast.TransportBroadcastAction;
import org.opensearch.cluster.ClusterState;
import org.opensearch.cluster.block.ClusterBlockException;
import org.opensearch.cluster.block.ClusterBlockLevel;
import org.opensearch.cluster.metadata.IndexNameExpressionResolver;
import org.opensearch.cluster.routing.GroupShardsIterator;
import org.opensearch.cluster.routing.ShardIterator;
import org.opensearch.cluster.routing.ShardRouting;
import org.opensearch.cluster.service.ClusterService;
import org.opensearch.common.inject.Inject;
import org.opensearch.core.action.ActionListener;
import org.opensearch.core.action.support.DefaultShardOperationFailedException;
import org.opensearch.core.common.breaker.CircuitBreaker;
import org.opensearch.core.common.io.stream.StreamInput;
import org.opensearch.core.indices.breaker.CircuitBreakerService;
import org.opensearch.index.IndexService;
import org.opensearch.index.engine.Engine;
import org.opensearch.index.query.QueryBuilder;
import org.opensearch.index.query.QueryShardContext;
import org.opensearch.index.query.Rewriteable;
import org.opensearch.index.shard.IndexShard;
import org.opensearch.indices.IndicesService;
import org.opensearch.tasks.CancellableTask;
import org.opensearch.tasks.Task;
import org.opensearch.threadpool.ThreadPool;
import org.opensearch.transport.TransportService;

/** Asks every shard for its part and merges. With several shards it first adds up their statistics, as dfs_query_then_fetch does. */
public final class TransportCompleteAction extends TransportBroadcastAction<
    CompleteRequest,
    CompleteResponse,
    CompleteShard.Request,
    CompleteShard.Response> {

    static final ActionType<CompleteResponse> TYPE = new ActionType<>("indices:data/read/hyblink/complete", CompleteResponse::new);
    private static final String LABEL = "<hyblink_complete>";

    private final IndicesService indices;
    private final CircuitBreakerService breakers;

    @Inject
    public TransportCompleteAction(
        ClusterService clusterService,
        TransportService transportService,
        ActionFilters filters,
        IndexNameExpressionResolver resolver,
        IndicesService indices,
        CircuitBreakerService breakers
    ) {
        super(
            TYPE.name(),
            clusterService,
            transportService,
            filters,
            resolver,
            CompleteRequest::new,
            CompleteShard.Request::new,
            ThreadPool.Names.SEARCH
        );
        this.indices = indices;
        this.breakers = breakers;
    }

    @Override
    protected void doExecute(Task task, CompleteRequest request, ActionListener<CompleteResponse> listener) {
        ClusterState state = clusterService.state();
        String[] concrete = indexNameExpressionResolver.concreteIndexNames(state, request);
        if (request.ownStatistics || request.counted != null || request.collecting || request.statistics != null || shards(state, request, concrete).size() < 2) {
            super.doExecute(task, request, listener);
            return;
        }
        super.doExecute(task, request.forStatistics(), ActionListener.wrap(found -> {
            if (found.getFailedShards() > 0) {
                listener.onResponse(found);
                return;
            }
            request.statistics = found.statistics;
            super.doExecute(task, request, listener);
        }, listener::onFailure));
    }

    @Override
    protected GroupShardsIterator<ShardIterator> shards(ClusterState state, CompleteRequest request, String[] concrete) {
        return clusterService.operationRouting().searchShards(state, concrete, null, null);
    }

    @Override
    protected ClusterBlockException checkGlobalBlock(ClusterState state, CompleteRequest request) {
        return state.blocks().globalBlockedException(ClusterBlockLevel.READ);
    }

    @Override
    protected ClusterBlockException checkRequestBlock(ClusterState state, CompleteRequest request, String[] concrete) {
        return state.blocks().indicesBlockedException(ClusterBlockLevel.READ, concrete);
    }

    @Override
    protected CompleteShard.Request newShardRequest(int shards, ShardRouting shard, CompleteRequest request) {
        return new CompleteShard.Request(shard.shardId(), request);
    }

    @Override
    protected CompleteShard.Response readShardResponse(StreamInput in) throws IOException {
        return new CompleteShard.Response(in);
    }

    @Override
    protected CompleteResponse newResponse(CompleteRequest request, @SuppressWarnings("rawtypes") AtomicReferenceArray answers, ClusterState state) {
        List<CompleteShard.Response> found = new ArrayList<>();
        List<DefaultShardOperationFailedException> failures = new ArrayList<>();
        int unassigned = 0;
        for (int at = 0; at < answers.length(); at++) {
            Object answer = answers.get(at);
            if (answer instanceof CompleteShard.Response response) {
                found.add(response);
            } else if (answer instanceof BroadcastShardOperationFailedException failure) {
                failures.add(new DefaultShardOperationFailedException(failure));
            } else {
                unassigned++;
            }
        }
        // A shard without a copy that could be asked is counted in the total and among the successful by nobody.
        return new CompleteResponse(answers.length(), answers.length() - unassigned - failures.size(), failures, request, found);
    }

    @Override
    protected CompleteShard.Response shardOperation(CompleteShard.Request request, Task task) throws IOException {
        CompleteRequest asked = request.asked;
        IndexService index = indices.indexServiceSafe(request.shardId().getIndex());
        IndexShard shard = index.getShard(request.shardId().id());
        long until = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(asked.limitMillis);
        BooleanSupplier stopped = () -> System.nanoTime() - until > 0 || task instanceof CancellableTask one && one.isCancelled();
        CircuitBreaker breaker = breakers.getBreaker(CircuitBreaker.REQUEST);
        // Each passage as collected, merged and written: document, row, place, and a score for each signal.
        long bytes = (long) (asked.size * asked.names.size() + asked.candidates.length) * (32 + 8L * asked.names.size());
        breaker.addEstimateBytesAndMaybeBreak(bytes, LABEL);
        try (Engine.Searcher held = shard.acquireSearcher("hyblink_complete")) {
            if (asked.collecting) {
                Statistics statistics = new Statistics();
                IndexSearcher searcher = prepared(statistics.recording(held.getIndexReader()), held);
                QueryShardContext context = index.newQueryShardContext(shard.shardId().id(), searcher, System::currentTimeMillis, null);
                for (QueryBuilder query : asked.queries) {
                    searcher.createWeight(searcher.rewrite(query(query, context)), ScoreMode.COMPLETE, 1f);
                }
                return new CompleteShard.Response(shard.shardId(), statistics, new long[0]);
            }
            if (asked.counted != null) {
                IndexSearcher searcher = prepared(new IndexSearcher(held.getIndexReader()), held);
                QueryShardContext context = index.newQueryShardContext(shard.shardId().id(), searcher, System::currentTimeMillis, null);
                Query among = asked.filter == null ? null : query(asked.filter, context);
                long[] counts = new Frequencies(searcher, among, stopped).of(asked.counted, asked.tokens);
                return new CompleteShard.Response(shard.shardId(), null, counts);
            }
            Statistics statistics = asked.statistics == null ? new Statistics() : asked.statistics;
            IndexSearcher searcher = prepared(statistics.scoring(held.getIndexReader()), held);
            QueryShardContext context = index.newQueryShardContext(shard.shardId().id(), searcher, System::currentTimeMillis, null);
            List<Query> signals = new ArrayList<>();
            for (QueryBuilder query : asked.queries) {
                signals.add(query(query, context));
            }
            Query filter = asked.filter == null ? null : query(asked.filter, context);
            return new Completion(searcher, asked.row, asked.size, filter, signals, asked.candidates, stopped).run(
                shard.shardId(),
                transportService.getThreadPool().executor(ThreadPool.Names.SEARCH)
            );
        } finally {
            breaker.addWithoutBreaking(-bytes);
        }
    }

    private static IndexSearcher prepared(IndexSearcher searcher, Engine.Searcher like) {
        searcher.setSimilarity(like.getSimilarity());
        searcher.setQueryCache(like.getQueryCache());
        searcher.setQueryCachingPolicy(like.getQueryCachingPolicy());
        return searcher;
    }

    private static Query query(QueryBuilder builder, QueryShardContext context) throws IOException {
        return Rewriteable.rewrite(builder, context, true).toQuery(context);
    }
}
