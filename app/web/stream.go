package web

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
)

// sendTimeout is how long a client may take to accept an event.
const sendTimeout = 5 * time.Second

// EventStream begins a stream of server-sent events. send sends one, in the format of EventSource. It fails if the client
// has disconnected, or with os.ErrDeadlineExceeded if it does not read; the handler then ends without an error, because
// its response has begun. A HEAD request is answered, and has no send.
func EventStream(c echo.Context) (send func(event []byte) error) {
	h := c.Response().Header()
	h.Set(echo.HeaderContentType, "text/event-stream")
	h.Set(echo.HeaderCacheControl, "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would collect events
	c.Response().WriteHeader(http.StatusOK)
	if c.Request().Method == http.MethodHead {
		return nil
	}
	wire := http.NewResponseController(c.Response().Writer) // echo discards the error of a flush
	return func(event []byte) error {
		if err := wire.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil { // the server's covers the whole response
			return err
		}
		if _, err := c.Response().Write(event); err != nil {
			return err
		}
		return wire.Flush()
	}
}
