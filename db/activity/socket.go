package activity

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/db/localpg/system"
)

// A running server keeps a monitoring connection. Through a Unix socket it shares that connection with the same user on
// the same machine, so that it can be used when no slot is left. One request is one poll or one signal.

// SocketDir returns the directory for such sockets: ddtb in runtimeDir ($XDG_RUNTIME_DIR) or, if that is empty, a
// directory for this user among the temporary files. It makes the directory if necessary, and refuses one that others
// can access.
func SocketDir(runtimeDir string) (string, error) {
	dir := filepath.Join(runtimeDir, "ddtb")
	if runtimeDir == "" {
		dir = filepath.Join(os.TempDir(), fmt.Sprintf("ddtb-%d", os.Getuid()))
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	// On Windows, where files have no owner, the temporary directory belongs to this user alone.
	owner, known := system.Owner(info)
	if !info.IsDir() || known && (owner != os.Getuid() || info.Mode().Perm()&0o077 != 0) {
		return "", fmt.Errorf("%s is not a directory of this user alone (mode 0700): the monitor's socket is not put there", dir)
	}
	return dir, nil
}

// SocketDirs returns the directories in which a running server of this user may have its socket: its environment need
// not have the same $XDG_RUNTIME_DIR.
func SocketDirs(runtimeDir string) (dirs []string) {
	for _, of := range []string{cmp.Or(runtimeDir, fmt.Sprintf("/run/user/%d", os.Getuid())), ""} {
		if dir, err := SocketDir(of); err == nil {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// addressOf names the database that a login leads to. It uses the resolved login, so that a file without a host, a URL
// and a list of hosts that lead to the same place have the same name. Two names of one server that only DNS or the
// server can match stay different.
func addressOf(cc *pgx.ConnConfig) string {
	hosts := []string{hostAddress(cc.Host, cc.Port)}
	for _, f := range cc.Fallbacks { // one for each further host, and for each way to encrypt
		if h := hostAddress(f.Host, f.Port); !slices.Contains(hosts, h) {
			hosts = append(hosts, h)
		}
	}
	return strings.Join(hosts, ",") + "/" + cmp.Or(cc.Database, cc.User) // PostgreSQL's default is the user's name
}

// hostAddress returns HOST:PORT in one spelling. Symbolic links of a socket's directory are resolved: /var/run is one.
func hostAddress(host string, port uint16) string {
	if filepath.IsAbs(host) {
		if dir, err := filepath.EvalSymlinks(host); err == nil {
			host = dir
		}
		host = filepath.Clean(host)
	} else if host = strings.ToLower(host); host == "localhost" {
		host = "127.0.0.1"
	} else if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Unmap().String()
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// socketPrefix returns the common prefix of the sockets for one database. Each server appends its process ID.
func socketPrefix(dir string, cc *pgx.ConnConfig) string {
	sum := sha256.Sum256([]byte(addressOf(cc)))
	return filepath.Join(dir, fmt.Sprintf("monitor-%x-", sum[:6]))
}

// Share answers polls and signals on a socket in dir until ctx ends, over the Observer's connection. It removes the
// sockets of killed servers.
func (o *Observer) Share(ctx context.Context, dir string) error {
	done, err := o.take(ctx) // Use may change the server meanwhile
	if err != nil {
		return err
	}
	prefix := socketPrefix(dir, o.cc)
	done()
	removeStale(ctx, prefix)
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", fmt.Sprintf("%s%d.sock", prefix, os.Getpid()))
	if err != nil {
		return fmt.Errorf("share the monitoring connection: %w", err)
	}
	srv := &http.Server{
		Handler: o.handler(), ReadHeaderTimeout: time.Second, ReadTimeout: pollTimeout, WriteTimeout: 2 * pollTimeout,
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("share the monitoring connection: %w", err)
	case <-ctx.Done():
	}
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if srv.Shutdown(patience) != nil {
		_ = srv.Close()
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("share the monitoring connection: %w", err)
	}
	return nil
}

// removeStale removes the sockets on which no server answers.
func removeStale(ctx context.Context, prefix string) {
	found, _ := filepath.Glob(prefix + "*.sock") // only fails for a malformed pattern
	for _, path := range found {
		if conn, err := dialSocket(ctx, path); err == nil {
			_ = conn.Close()
		} else if errors.Is(err, syscall.ECONNREFUSED) {
			_ = os.Remove(path)
		}
	}
}

func dialSocket(ctx context.Context, path string) (net.Conn, error) {
	d := net.Dialer{Timeout: time.Second}
	return d.DialContext(ctx, "unix", path)
}

// orderLimit bounds a client's request, in bytes.
const orderLimit = 64 << 10

func (o *Observer) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /snapshot", reply(func(r *http.Request) (any, error) { return o.Snapshot(r.Context()) }))
	mux.Handle("GET /process", reply(func(*http.Request) (any, error) {
		if o.Process == nil {
			return nil, errors.New("this process has no leases")
		}
		return o.Process(), nil
	}))
	mux.Handle("POST /signal", reply(func(r *http.Request) (any, error) {
		var order Order
		if err := json.NewDecoder(io.LimitReader(r.Body, orderLimit)).Decode(&order); err != nil {
			return nil, err
		}
		return o.Signal(r.Context(), order)
	}))
	return mux
}

// reply is a handler that returns a value as JSON.
type reply func(*http.Request) (any, error)

// ServeHTTP implements http.Handler.
func (f reply) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	value, err := f(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value) // fails if the client has left
}

// Remote polls and signals over the connection of a running server.
type Remote struct {
	path   string
	client *http.Client
}

// ErrNotShared is the error of FindShared if no server of this user monitors the database.
var ErrNotShared = errors.New("no running ddtb server of this user shares its monitoring connection")

// mostServers bounds how many servers are asked.
const mostServers = 100

// remotes returns the servers of this user on this machine that monitor cc's database, or did until they were killed.
func remotes(dirs []string, cc *pgx.ConnConfig) (all []*Remote) {
	var found []string
	for _, dir := range dirs {
		paths, _ := filepath.Glob(socketPrefix(dir, cc) + "*.sock") // only fails for a malformed pattern
		found = append(found, paths...)
	}
	for _, path := range found[:min(len(found), mostServers)] {
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return dialSocket(ctx, path) }
		all = append(all, &Remote{path, &http.Client{
			Timeout: 2 * pollTimeout, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true},
		}})
	}
	return all
}

// FindShared finds a running server with a socket in dirs that monitors cc's database and can reach it.
func FindShared(ctx context.Context, dirs []string, cc *pgx.ConnConfig) (*Remote, error) {
	for _, r := range remotes(dirs, cc) {
		if _, err := r.Snapshot(ctx); err == nil {
			return r, nil
		}
	}
	return nil, ErrNotShared
}

// Snapshot is part of Poller.
func (r *Remote) Snapshot(ctx context.Context) (s Snapshot, err error) {
	err = r.ask(ctx, http.MethodGet, "snapshot", nil, &s)
	s.Through = r.path
	return s, err
}

// AskProcesses asks the running servers with a socket in dirs that monitor cc's database for the figures of their own
// leases. It leaves out servers that don't answer in time, or are too old to know the request.
func AskProcesses(ctx context.Context, dirs []string, cc *pgx.ConnConfig) (all []Process) {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	for _, r := range remotes(dirs, cc) {
		var p Process
		if r.ask(ctx, http.MethodGet, "process", nil, &p) == nil {
			all = append(all, p)
		}
	}
	return all
}

// Signal is part of Poller.
func (r *Remote) Signal(ctx context.Context, order Order) (outcome Outcome, err error) {
	body, _ := json.Marshal(order) // none of its types can fail
	err = r.ask(ctx, http.MethodPost, "signal", body, &outcome)
	return outcome, err
}

func (r *Remote) ask(ctx context.Context, method, what string, body []byte, answer any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://monitor/"+what, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the running server: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		return fmt.Errorf("the running server could not: %s", text)
	}
	return json.NewDecoder(resp.Body).Decode(answer)
}
