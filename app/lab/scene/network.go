package scene

import (
	"context"
	"encoding/binary"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
)

// Network is the network between the application and the server. It fails at the application's end, like a firewall or
// a load balancer between the two.
type Network struct {
	// LosesCancels drops cancel requests, like a balancer that sends them to a different server.
	LosesCancels bool

	stage *Stage
	mu    sync.Mutex
	conns []*networkConn
}

// Network returns a network that works.
func (s *Stage) Network() *Network { return &Network{stage: s} }

// Direct makes the settings use the network.
func (n *Network) Direct(cc *pgx.ConnConfig) { cc.DialFunc = n.dial }

func (n *Network) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns = append(n.conns, &networkConn{Conn: conn, network: n})
	return n.conns[len(n.conns)-1], nil
}

// Silence drops all further data of the existing connections without closing them, like a network that lost their
// state: the server keeps its side open. New connections work.
func (n *Network) Silence() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		n.stage.Failed(c.silence(n.stage))
	}
	n.conns = nil
}

// networkConn is the application's end of a connection.
type networkConn struct {
	net.Conn
	network *Network
	silent  atomic.Bool
}

// silence keeps a second descriptor of the socket, so that the server does not see the application close its own.
func (c *networkConn) silence(s *Stage) error {
	c.silent.Store(true)
	file, err := c.Conn.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		return err
	}
	s.Afterwards(func() { _, _ = c.Close(), file.Close() }) // before the pool, which waits for the server
	return nil
}

const cancelCode = 80877102 // the protocol's code for a cancel request

func (c *networkConn) Write(data []byte) (int, error) {
	if c.silent.Load() {
		return len(data), nil
	}
	if c.network.LosesCancels && len(data) >= 8 && binary.BigEndian.Uint32(data[4:]) == cancelCode {
		return len(data), c.Close()
	}
	return c.Conn.Write(data)
}
