// Package envelope is the other end of a Sentry client: an HTTP endpoint that speaks the envelope protocol and keeps
// what it received. Experiments use it where there is no Sentry, or where it is to be slow; tests use it too. It keeps
// a bounded number of items, and does not depend on what reports to it.
package envelope

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Item is one thing in an envelope: an event, a transaction, a client report.
type Item struct {
	Type    string
	Payload []byte
}

const (
	maxBody  = 1 << 20 // bytes, as Sentry
	maxItems = 200     // that a Sink keeps: the latest
)

// Parse reads one envelope: a header, then a header and a payload for each item. All are JSON: sentry-go sends nothing
// else without attachments.
func Parse(r io.Reader) (items []Item, err error) {
	in := json.NewDecoder(r)
	var header struct{ Type string }
	if err := in.Decode(&header); err != nil {
		return nil, fmt.Errorf("the envelope's header: %w", err)
	}
	for {
		header.Type = ""
		if err := in.Decode(&header); errors.Is(err, io.EOF) {
			return items, nil
		} else if err != nil {
			return nil, fmt.Errorf("the header of item %d: %w", len(items), err)
		}
		var payload json.RawMessage
		if err := in.Decode(&payload); err != nil {
			return nil, fmt.Errorf("item %d, %q: %w", len(items), header.Type, err)
		}
		items = append(items, Item{header.Type, payload})
	}
}

// Sink is the endpoint: an http.Handler for POST /api/PROJECT/envelope/, uncompressed, as sentry-go sends it. Set its fields
// before the first request.
type Sink struct {
	Quota int           // events to accept before it answers 429; 0: all
	Delay time.Duration // until it answers; it hangs if that is longer than the client waits

	mu    sync.Mutex
	items []Item
}

func (s *Sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/envelope/") {
		http.NotFound(w, r)
		return
	}
	items, err := Parse(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	select {
	case <-time.After(s.Delay):
	case <-r.Context().Done():
		return
	}
	if !s.keep(items) {
		w.Header().Set("Retry-After", "60")
		http.Error(w, "the quota is used up", http.StatusTooManyRequests)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, "{}\n")
}

// keep reports whether the quota had room for the items.
func (s *Sink) keep(items []Item) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Quota > 0 && len(s.of("event")) >= s.Quota {
		return false
	}
	s.items = append(s.items, items...)
	s.items = append([]Item(nil), s.items[max(0, len(s.items)-maxItems):]...)
	return true
}

// Items are the kept ones of the type, as "event" or "transaction", oldest first; "": all.
func (s *Sink) Items(kind string) []Item {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.of(kind)
}

// of is Items for a caller that holds the lock.
func (s *Sink) of(kind string) (out []Item) {
	for _, i := range s.items {
		if kind == "" || i.Type == kind {
			out = append(out, i)
		}
	}
	return out
}
