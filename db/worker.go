package db

import "context"

// A worker is what keeps a connection under the strategy "persistent": in a threaded server a thread, which
// here is the client's TCP connection. It is gone when its context ends.
type workerKey struct{}

// WithWorker begins the life of a worker: requests whose context descends from the returned one are served by
// it. gone ends it; it may be called twice.
func WithWorker(ctx context.Context) (_ context.Context, gone context.CancelFunc) {
	worker, gone := context.WithCancel(context.WithoutCancel(ctx))
	return context.WithValue(ctx, workerKey{}, worker), gone
}

// workerOf is the worker that serves ctx, or nil.
func workerOf(ctx context.Context) context.Context {
	w, _ := ctx.Value(workerKey{}).(context.Context)
	return w
}
