package envelope

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"as sentry-go sends it", "{\"event_id\":\"1\"}\n{\"type\":\"event\",\"length\":2}\n{}\n{\"type\":\"x\",\"length\":8}\n{\"a\":\n1}\n", `event "{}" x "{\"a\":\n1}"`},
		{"without lengths", "{}\n{\"type\":\"event\"}\n{\"a\":1}\n{}\n{}", `event "{\"a\":1}"  "{}"`},
		{"no items", "{}\n", ""},
		{"nothing", "", "error"},
		{"no JSON", "x\n", "error"},
		{"cut in a payload", "{}\n{\"type\":\"event\",\"length\":9}\n{", "error"},
		{"cut before a payload", "{}\n{\"type\":\"event\",\"length\":9}\n", "error"},
	} {
		items, err := Parse(strings.NewReader(c.body))
		var got []string
		for _, i := range items {
			got = append(got, fmt.Sprintf("%s %q", i.Type, i.Payload))
		}
		if err != nil {
			got = []string{"error"}
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: got %s, want %s (%v)", c.name, s, c.want, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("{}\n{\"type\":\"event\",\"length\":2}\n{}\n"))
	f.Fuzz(func(_ *testing.T, body []byte) { _, _ = Parse(bytes.NewReader(body)) })
}

func TestASinkKeepsTheLatest(t *testing.T) {
	s := &Sink{}
	for i := range maxItems + 5 {
		equal(t, post(t, s, "/api/7/envelope/", fmt.Appendf(nil, "{}\n{\"type\":\"event\"}\n%d\n", i)), http.StatusOK)
	}
	events := s.Items("event")
	equal(t, len(events), maxItems)
	equal(t, string(events[0].Payload), "5")
	equal(t, len(s.Items("transaction")), 0)
}

func TestASinkRefusesEventsBeyondItsQuota(t *testing.T) {
	s := &Sink{Quota: 2}
	for i, want := range []int{http.StatusOK, http.StatusOK, http.StatusTooManyRequests} {
		equal(t, post(t, s, "/api/7/envelope/", fmt.Appendf(nil, "{}\n{\"type\":\"event\"}\n%d\n", i)), want)
	}
	equal(t, len(s.Items("event")), 2)
}

func TestASinkRefusesWhatIsNoEnvelope(t *testing.T) {
	s := &Sink{}
	equal(t, post(t, s, "/api/7/envelope/", []byte("x")), http.StatusBadRequest)
	equal(t, post(t, s, "/other", []byte("{}")), http.StatusNotFound)
	equal(t, post(t, s, "/api/7/envelope/", fmt.Appendf(nil, "{}\n{\"type\":\"event\"}\n%q\n", strings.Repeat("x", maxBody))), http.StatusBadRequest)
	equal(t, len(s.Items("")), 0)
}

func post(t *testing.T, h http.Handler, path string, body []byte) int {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, bytes.NewReader(body))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code
}

func equal[T comparable](t *testing.T, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}
