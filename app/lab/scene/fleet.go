package scene

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const haproxyConfig = `defaults
    mode http
    timeout connect 500ms
    timeout client 10s
    timeout server 10s
    timeout queue 2s
    option redispatch
frontend web
    bind %s
    default_backend app
backend app
    option httpchk GET /ready
    default-server check inter 100ms fall 2 rise 1
`

// Noticed is a little longer than a Site needs to notice that a process is unready.
const Noticed = 400 * time.Millisecond

// Site is a real HAProxy, which distributes requests among the ready processes.
type Site struct {
	url    string
	places []net.Listener // for processes; open from the start, so that no other program takes the port
	client *http.Client
}

// Site starts the balancer with that many places for processes.
func (s *Stage) Site(places int) *Site {
	site := &Site{client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}}
	s.Afterwards(site.client.CloseIdleConnections)
	s.Failed(s.startSite(site, places))
	return site
}

func (s *Stage) startSite(site *Site, places int) error {
	program, err := find("haproxy")
	if err != nil {
		return err
	}
	web, err := s.free()
	if err != nil {
		return err
	}
	site.url = "http://" + web.String()
	config := fmt.Sprintf(haproxyConfig, web)
	for n := range places {
		place, err := s.listen()
		if err != nil {
			return err
		}
		s.Afterwards(func() { _ = place.Close() })
		site.places = append(site.places, place)
		config += fmt.Sprintf("    server app%d %s\n", n+1, place.Addr())
	}
	return s.runUnderShell("HAProxy", web.String(), config, program, "-db", "-q", "-f")
}

// Post sends a form, which no proxy may send twice.
func (x *Site) Post(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, x.url, nil)
	if err != nil {
		return err
	}
	resp, err := x.client.Do(req)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err = errors.Join(err, resp.Body.Close()); err != nil || resp.StatusCode == http.StatusOK {
		return err
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	if code := resp.Header.Get(sqlstate); code != "" {
		return &pgconn.PgError{Severity: "FATAL", Code: code, Message: line}
	}
	return fmt.Errorf("%s: %s", resp.Status, line)
}

// sqlstate is the header with which a Process returns the server's error code, for the figures.
const sqlstate = "Sqlstate"

// Process is a web server behind a Site, with its own pool.
type Process struct {
	server  *http.Server
	page    func(context.Context) error
	ended   func() // closes its resources
	unready atomic.Bool
}

// Start starts a process at a place of the site. page answers its requests, and end closes its resources. It returns
// when the balancer has marked the process as up.
func (s *Stage) Start(site *Site, place int, page func(context.Context) error, end func()) *Process {
	p := &Process{page: page, ended: end}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ready", p.ready)
	mux.HandleFunc("POST /", p.serve)
	p.server = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	if place >= len(site.places) {
		return p // HAProxy did not start, which has failed the stage
	}
	s.serve(func() { _ = p.server.Serve(site.places[place]) }, func() { _ = p.server.Close() }) // the error is that of closing it
	_ = Sleep(s.ctx, Noticed)
	return p
}

func (p *Process) ready(w http.ResponseWriter, _ *http.Request) {
	if p.unready.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

func (p *Process) serve(w http.ResponseWriter, r *http.Request) {
	if p.unready.Load() {
		w.Header().Set("Connection", "close")
	}
	err := p.page(r.Context())
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok {
		w.Header().Set(sqlstate, pe.Code)
		http.Error(w, pe.Message, http.StatusServiceUnavailable)
	} else if err != nil {
		http.Error(w, message(err), http.StatusServiceUnavailable)
	}
}

// Kill ends the process at once, aborting its requests.
func (p *Process) Kill() {
	_ = p.server.Close()
	p.ended()
}

// Drain makes the process unready, and closes each connection after its next response.
func (p *Process) Drain() { p.unready.Store(true) }

// End ends the process after its running requests.
func (p *Process) End(ctx context.Context) {
	_ = p.server.Shutdown(ctx) // if ctx ends first, the half has ended too
	p.ended()
}
