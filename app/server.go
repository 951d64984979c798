package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"ddtb/db"
)

// Listen opens the server's address. An error says what to do about it.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s is taken by another program: stop that one, or choose another place with --addr HOST:PORT (port 0 takes a free one)", addr)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("no permission to listen on %s: ports below 1024 are for root, choose another with --addr HOST:PORT", addr)
	case err != nil:
		return nil, fmt.Errorf("can't listen on %q: %w; give --addr as HOST:PORT, such as 127.0.0.1:8000", addr, err)
	}
	return l, nil
}

// Serve answers requests on l until ctx ends, then waits for those under way for as long as the configuration's
// shutdown_timeout says, and ends what New began.
func (a *App) Serve(ctx context.Context, l net.Listener) error {
	clients := newClients()
	server := &http.Server{
		Handler:           a.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      2*a.cfg.Test.MaxHold + time.Minute, // the longest answer is a stress run's
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
		ConnContext:       clients.begin,
		ConnState:         clients.changed,
	}
	server.RegisterOnShutdown(a.board.Close)  // its streams would not end by themselves
	server.RegisterOnShutdown(a.scenes.Close) // nor would these
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.cfg.Server.ShutdownTimeout)
		defer cancel()
		err := server.Shutdown(patience)
		if err != nil {
			err = errors.Join(fmt.Errorf("requests were still under way after %v, and were cut", a.cfg.Server.ShutdownTimeout), server.Close())
		}
		clients.quiet.Stop()
		stopped <- errors.Join(err, a.Close(patience))
	}()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return <-stopped
}

// clients makes each client connection a worker in the sense of package db, as a threaded server gives each a
// thread, and ends the worker with the connection.
type clients struct {
	gone  sync.Map    // net.Conn → context.CancelFunc
	quiet *time.Timer // ends when no request has ended for quietFor
}

// quietFor is how long after a burst of requests its memory goes back to the system: with a thousand clients that
// stay connected and ask for nothing, that is half of what the process has.
const quietFor = time.Second

func newClients() *clients { return &clients{quiet: time.AfterFunc(quietFor, debug.FreeOSMemory)} }

func (cs *clients) begin(ctx context.Context, c net.Conn) context.Context {
	ctx, gone := db.WithWorker(ctx)
	cs.gone.Store(c, gone)
	return ctx
}

func (cs *clients) changed(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateIdle:
		cs.quiet.Reset(quietFor)
	case http.StateClosed, http.StateHijacked:
		if gone, ok := cs.gone.LoadAndDelete(c); ok {
			gone.(context.CancelFunc)()
		}
	}
}
