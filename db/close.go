package db

import (
	"context"
	"io"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// closeTimeout bounds the wait for the server's side of a closed connection.
const closeTimeout = time.Second

// Disconnect closes a connection that Connect made, and waits until the server's process has ended, that is, until its
// slot is free, for at most one second: the kernel closes the socket after the backend has freed its slot. pgx, like
// libpq, does not wait for that, so a program that reconnects at once briefly has one backend more than it counts.
func Disconnect(conn *pgx.Conn) {
	pc := conn.PgConn()
	if pc.IsClosed() {
		select {
		case <-pc.CleanupDone():
		case <-time.After(closeTimeout):
			_ = pc.Conn().Close() // the driver itself would wait for 15 s
		}
		return
	}
	terminate(conn)
	_ = pc.Conn().Close()
	_ = conn.Close(context.Background()) // the socket is closed: this marks the driver's side
}

// abort ends a connection that a goroutine may be using: it only touches the socket. The running query is cancelled,
// since it would otherwise continue without its client. Closing our side, as EOF, ends the server's process, and the
// end of its side confirms that. Both together take no longer than closeTimeout.
func abort(conn *pgx.Conn) {
	socket := conn.PgConn().Conn()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = socket.Close() })() // no deadline: the driver may remove it
	_ = conn.PgConn().CancelRequest(ctx)
	if half, ok := socket.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, socket)
	}
	_ = socket.Close()
}

// terminate is Disconnect up to the end of the server's side. pgxpool's hook BeforeClose is the other caller.
func terminate(conn *pgx.Conn) {
	pc := conn.PgConn()
	if pc.IsClosed() {
		return
	}
	if pc.IsBusy() { // a result that was not read to its end: the server would continue it
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		_ = pc.CancelRequest(ctx)
		cancel()
	}
	_ = pc.Conn().SetDeadline(time.Now().Add(closeTimeout))
	message, err := (&pgproto3.Terminate{}).Encode(nil)
	if err != nil {
		return
	}
	_, _ = pc.Conn().Write(message) // fails after abort, whose wait for the backend must not be shortened
	_, _ = io.Copy(io.Discard, pc.Conn())
}
