// Package envelope is the other end of a Sentry client: an HTTP endpoint that speaks the envelope protocol and keeps
// what it received. Experiments use it where there is no Sentry, or where it is to be slow; tests use it too. It keeps
// a bounded number of items, and does not depend on what reports to it.
package envelope

import (
	"bufio"
	"bytes"
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

// Parse reads one envelope: a line with its header, then for each item a line with its header, and its payload,
// which has the length that the header says, or goes to the end of its line.
func Parse(r io.Reader) (items []Item, err error) {
	in := bufio.NewReader(io.LimitReader(r, maxBody))
	var header struct {
		Type   string
		Length *int
	}
	if err := readHeader(in, &header); err != nil {
		return nil, fmt.Errorf("the envelope's header: %w", err)
	}
	for {
		header.Length = nil
		if err := readHeader(in, &header); errors.Is(err, io.EOF) {
			return items, nil
		} else if err != nil {
			return nil, fmt.Errorf("the header of item %d: %w", len(items), err)
		}
		var payload []byte
		if header.Length == nil {
			payload, _ = in.ReadBytes('\n') // the last line may lack its end
			payload = bytes.TrimSuffix(payload, []byte("\n"))
		} else if *header.Length < 0 || *header.Length > maxBody {
			return nil, fmt.Errorf("item %d has a length of %d", len(items), *header.Length)
		} else {
			payload = make([]byte, *header.Length)
			if _, err := io.ReadFull(in, payload); err != nil {
				return nil, fmt.Errorf("item %d, %q: %w", len(items), header.Type, err)
			}
		}
		items = append(items, Item{header.Type, payload})
	}
}

// readHeader reads the next line that is not empty.
func readHeader(in *bufio.Reader, into any) error {
	for {
		text, err := in.ReadBytes('\n')
		if text = bytes.TrimSpace(text); len(text) > 0 {
			return json.Unmarshal(text, into)
		}
		if err != nil {
			return err
		}
	}
}

// Sink is the endpoint: an http.Handler for POST /api/PROJECT/envelope/, uncompressed, as sentry-go sends it. Set its fields
// before the first request.
type Sink struct {
	Quota int           // events to accept before it answers 429; 0: all
	Delay time.Duration // until it answers; it hangs if that is longer than the client waits

	mu    sync.Mutex
	items []Item
	total int
}

func (s *Sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/envelope/") {
		http.NotFound(w, r)
		return
	}
	items, err := Parse(r.Body)
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
	s.total += len(items)
	s.items = append(s.items, items...)
	s.items = append([]Item(nil), s.items[max(0, len(s.items)-maxItems):]...)
	return true
}

// Items are the kept ones of the type, as "event" or "transaction", oldest first.
func (s *Sink) Items(kind string) []Item {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.of(kind)
}

// of is Items for a caller that holds the lock.
func (s *Sink) of(kind string) (out []Item) {
	for _, i := range s.items {
		if i.Type == kind {
			out = append(out, i)
		}
	}
	return out
}

// Total is the number of items that ever came.
func (s *Sink) Total() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}
