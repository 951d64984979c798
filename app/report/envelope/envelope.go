// Package envelope is the other end of a Sentry client: an HTTP endpoint that speaks the envelope protocol, and
// keeps what it was sent. Experiments use it where there is no Sentry, or where it is to be slow; tests, too.
//
// It promises to keep a bounded number of items. It must not know what reports to it.
package envelope

import (
	"bufio"
	"bytes"
	"compress/gzip"
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

// maxBody is what Sentry takes at most, decompressed.
const maxBody = 1 << 20

// Parse reads one envelope: a line with its header, then for each item a line with its header, and its payload.
func Parse(r io.Reader) ([]Item, error) {
	in := bufio.NewReader(io.LimitReader(r, maxBody))
	if _, err := header(in); err != nil {
		return nil, fmt.Errorf("the envelope's header: %w", err)
	}
	var items []Item
	for {
		h, err := header(in)
		if errors.Is(err, io.EOF) {
			return items, nil
		}
		if err != nil {
			return nil, fmt.Errorf("the header of item %d: %w", len(items), err)
		}
		payload, err := h.payload(in)
		if err != nil {
			return nil, fmt.Errorf("item %d, %q: %w", len(items), h.Type, err)
		}
		items = append(items, Item{h.Type, payload})
	}
}

type itemHeader struct {
	Type   string `json:"type"`
	Length *int   `json:"length"`
}

// header reads the next line that is not empty.
func header(in *bufio.Reader) (h itemHeader, err error) {
	for {
		text, err := in.ReadBytes('\n')
		if text = bytes.TrimSpace(text); len(text) > 0 {
			return h, json.Unmarshal(text, &h)
		}
		if err != nil {
			return h, err
		}
	}
}

// payload has the length that the header says, or goes to the end of its line.
func (h itemHeader) payload(in *bufio.Reader) ([]byte, error) {
	if h.Length == nil {
		text, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return bytes.TrimSuffix(text, []byte("\n")), err
	}
	if *h.Length < 0 || *h.Length > maxBody {
		return nil, fmt.Errorf("a length of %d", *h.Length)
	}
	payload := make([]byte, *h.Length)
	_, err := io.ReadFull(in, payload)
	return payload, err
}

// Sink is the endpoint: an http.Handler for POST /api/PROJECT/envelope/, and /stream as Spotlight has it.
type Sink struct {
	delay time.Duration

	mu    sync.Mutex
	items []Item
	total int
}

// maxItems bounds what a Sink keeps: the latest.
const maxItems = 200

// NewSink makes a sink that answers after delay; it hangs if that is longer than the client's patience.
func NewSink(delay time.Duration) *Sink { return &Sink{delay: delay} }

func (s *Sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/envelope/") && r.URL.Path != "/stream" {
		http.NotFound(w, r)
		return
	}
	items, err := read(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	timer := time.NewTimer(s.delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
		return
	}
	s.keep(items)
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, "{}\n")
}

func read(r *http.Request) ([]Item, error) {
	if r.Header.Get("Content-Encoding") != "gzip" {
		return Parse(r.Body)
	}
	unzipped, err := gzip.NewReader(r.Body)
	if err != nil {
		return nil, err
	}
	return Parse(unzipped)
}

func (s *Sink) keep(items []Item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total += len(items)
	s.items = append(s.items, items...)
	if over := len(s.items) - maxItems; over > 0 {
		s.items = append([]Item(nil), s.items[over:]...)
	}
}

// Items are those of the type that came, as "event" or "transaction", oldest first.
func (s *Sink) Items(kind string) []Item {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Item
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
