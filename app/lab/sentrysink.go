package lab

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"ddtb/config"
)

// sentryPatience is the maximum wait of a synchronous capture for Sentry, and of a run for its last events.
const sentryPatience = 5 * time.Second

// destination returns where a run's events go: the configured Sentry, or a stand-in in this process if there is none or
// it has to be slow. end closes the stand-in. It also closes when ctx ends.
func (r *sentryRun) destination(ctx context.Context, to config.Sentry) (dsn config.Secret, end func(), err error) {
	if to.DSN != "" && !r.standIn {
		r.answer.SentTo, r.sink = "the Sentry that is configured", nil
		return to.DSN, func() {}, nil
	}
	r.answer.SentTo = fmt.Sprintf("a stand-in for Sentry inside this process, which answers after %v", r.sink.Delay)
	var listen net.ListenConfig
	l, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("the stand-in for Sentry: %w", err)
	}
	server := &http.Server{Handler: r.sink, ReadHeaderTimeout: sentryPatience}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(l) }() // the error is that of closing it
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	return config.Secret(fmt.Sprintf("http://key@%s/1", l.Addr())), func() {
		stop()
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		_ = server.Shutdown(ctx) // waits for the handlers, whose clients have disconnected
		_ = server.Close()
		<-served
	}, nil
}
