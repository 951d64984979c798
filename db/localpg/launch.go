package localpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	startTimeout = 2 * time.Minute // a killed server first replays its log
	maxLog       = 10 << 20        // bytes; a longer log of earlier runs is truncated at the start
	portTries    = 5
)

// launch starts the server on a port, or on another one if the port was just taken, and waits until it answers.
func (s *Server) launch(ctx context.Context) error {
	_, last := s.directory.lastRun()
	var err error
	for range portTries {
		if s.port, err = choosePort(s.options.Port, last); err != nil {
			return err
		}
		if err := s.directory.noteRun(s.port); err != nil {
			return err
		}
		if err = s.launchPatiently(ctx); err == nil {
			return nil
		}
		if s.options.Port != 0 || isFree(s.port) { // the port was not the reason
			return err
		}
		last = 0
	}
	return err
}

// detachPatience is how long the kernel may take to free the shared resources of killed processes, after they have left
// the process list.
const detachPatience = 5 * time.Second

// launchPatiently retries while the server refuses because of processes that takeOver has just killed.
func (s *Server) launchPatiently(ctx context.Context) error {
	for end := time.Now().Add(detachPatience); ; {
		err := s.launchOnce(ctx)
		if err == nil || time.Now().After(end) || !strings.Contains(err.Error(), "pre-existing shared memory block") {
			return err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

func (s *Server) launchOnce(ctx context.Context) error {
	log, err := openLog(s.directory.log())
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the server has its own copy
	began, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	cmd := s.directory.acct.as(exec.Command(s.programs.postgres(), s.arguments()...)) //nolint:noctx // lives until Stop
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.directory.path, log, log
	start := time.Now()
	if s.process, err = startProcess(cmd); err != nil {
		return err
	}
	if err := s.waitReady(ctx); err != nil {
		end := s.process.end(context.WithoutCancel(ctx), immediate, s.directory.data())
		s.process = nil
		return errors.Join(fmt.Errorf("%w%s", err, lastLines(s.directory.log(), began)), end)
	}
	s.log.Info("PostgreSQL started", "version", s.programs.version.String(), "address", s.address(), "dir", s.directory.path,
		"took", time.Since(start).Round(time.Millisecond))
	return nil
}

// arguments contain no secret, because every user can read them.
func (s *Server) arguments() []string {
	o := s.options
	set := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(s.port),
		"unix_socket_directories": "",
		"max_connections":         strconv.Itoa(o.MaxConnections),
		"logging_collector":       "off",
		"log_line_prefix":         "%m [%p] %q%u@%d ",
	}
	if o.Volatile {
		maps.Copy(set, map[string]string{
			"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off",
			"shared_buffers": "16MB", "max_wal_size": "256MB", "autovacuum": "off", "wal_level": "minimal", "max_wal_senders": "0",
		})
	}
	maps.Copy(set, o.Settings)
	args := []string{"-D", s.directory.data()}
	for _, k := range slices.Sorted(maps.Keys(set)) {
		args = append(args, "-c", k+"="+set[k])
	}
	return args
}

// waitReady returns nil when a superuser can log in, or the reason why that is not possible.
func (s *Server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		conn, err := s.Connect(ctx, "postgres")
		if err == nil {
			return conn.Close(ctx)
		}
		if pe, ok := errors.AsType[*pgconn.PgError](err); ok && pe.Code != pgerrcode.CannotConnectNow &&
			pe.Code != pgerrcode.TooManyConnections {
			return fmt.Errorf("the server on %s does not let its superuser in: %w", s.address(), err)
		}
		if _, tried := errors.AsType[*pgconn.ConnectError](err); !tried { // the login is wrong, or its environment
			return err
		}
		select {
		case <-s.process.done:
			return fmt.Errorf("the server ended at once (%v)", s.process.cmd.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("the server on %s did not answer: %w: %w", s.address(), context.Cause(ctx), err)
		case <-time.After(pause):
		}
	}
}

// choosePort returns the requested port, or else the last one if it is free, or else any.
func choosePort(want, last int) (int, error) {
	if want != 0 {
		if !isFree(want) {
			return 0, fmt.Errorf("port %d on 127.0.0.1 is taken by another program: stop that, or choose another port", want)
		}
		return want, nil
	}
	if last != 0 && isFree(last) {
		return last, nil
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0") //nolint:noctx // needs no name, doesn't wait
	if err != nil {
		return 0, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}

func isFree(port int) bool {
	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))) //nolint:noctx // doesn't wait
	if err != nil {
		return false
	}
	return l.Close() == nil
}

func openLog(name string) (*os.File, error) {
	flags := os.O_RDWR | os.O_CREATE | os.O_APPEND
	if info, err := os.Stat(name); err == nil && info.Size() > maxLog {
		flags |= os.O_TRUNC
	}
	return os.OpenFile(name, flags, 0o600)
}

// lastLines returns the server's last messages since its start, at most ten lines.
func lastLines(name string, began int64) string {
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	end, _ := f.Seek(0, io.SeekEnd)
	text, _ := io.ReadAll(io.NewSectionReader(f, max(began, end-64<<10), 64<<10)) // any readable part is enough
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if lines[0] == "" {
		return ""
	}
	return "; its log ends with:\n" + strings.Join(lines[max(0, len(lines)-10):], "\n")
}
