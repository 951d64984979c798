package report

import (
	"context"
	"net"
	"time"
)

// dialTimeout bounds one attempt to reach a mail server or Sentry.
const dialTimeout = 10 * time.Second

// dialUntil dials as net.Dialer does, and cuts the connection when ends is done. The libraries' own deadlines
// are for one step each, and a server that answers a byte at a time would outlive the bound of Close.
func dialUntil(ends context.Context) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		defer context.AfterFunc(ends, cancel)()
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &cutConn{conn, context.AfterFunc(ends, func() { _ = conn.Close() })}, nil
	}
}

type cutConn struct {
	net.Conn
	forget func() bool
}

func (c *cutConn) Close() error {
	c.forget()
	return c.Conn.Close()
}
