package org.hyblink.opensearch;

import java.util.Map;
import org.opensearch.core.tasks.TaskId;
import org.opensearch.tasks.CancellableTask;

/** A task that stops, with all it has begun on other nodes, when its caller goes away or somebody cancels it. */
final class StoppableTask extends CancellableTask {
    StoppableTask(long id, String type, String action, String description, TaskId parent, Map<String, String> headers) {
        super(id, type, action, description, parent, headers);
    }

    @Override
    public boolean shouldCancelChildrenOnCancellation() {
        return true;
    }
}
