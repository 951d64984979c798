package db

import "context"

// A worker keeps a connection under the strategy "persistent". In a threaded server that is a thread; here it is the
// client's TCP connection. It ends when its context ends.
type workerKey struct{}

// WithWorker begins a worker. It serves requests whose context descends from the returned one. gone ends it, and may be
// called twice.
func WithWorker(ctx context.Context) (_ context.Context, gone context.CancelFunc) {
	worker, gone := context.WithCancel(context.WithoutCancel(ctx))
	return context.WithValue(ctx, workerKey{}, worker), gone
}

// workerOf returns the worker that serves ctx, or nil.
func workerOf(ctx context.Context) context.Context {
	w, _ := ctx.Value(workerKey{}).(context.Context)
	return w
}
