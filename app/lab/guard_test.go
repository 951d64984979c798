package lab_test

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
)

// deadlined is the response of a server whose write timeout can be changed, as that of net/http.
type deadlined struct {
	*httptest.ResponseRecorder
	deadline time.Time
}

func (d *deadlined) SetWriteDeadline(t time.Time) error { d.deadline = t; return nil }

func TestAnAnswerMayTakeAsLongAsTheLimitThatIsInForceAllows(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	raised := limits
	raised.MaxHold = 10 * time.Minute
	s.lab.Configure(raised)
	w := &deadlined{ResponseRecorder: httptest.NewRecorder()}
	c := echo.New().NewContext(httptest.NewRequestWithContext(t.Context(), "GET", "/test/", nil), w)
	if err := s.lab.Routes(unguarded)["/test/"](c); err != nil {
		t.Fatal(err)
	}
	if left := time.Until(w.deadline); left < 20*time.Minute { // a holder may wait as long as it then holds
		t.Errorf("it is cut off after %v", left)
	}
}
