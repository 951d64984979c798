package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ddtb/db/dbtest"
	"ddtb/db/logtest"
)

func TestWhatLeavesTheProcessIsTextAndNothingElse(t *testing.T) {
	for name, c := range map[string]struct {
		colour bool
		writes []string
		want   string
	}{
		"plain text, tabs and line feeds pass":       {writes: []string{"a\tb\n"}, want: "a\tb\n"},
		"letters of all languages pass":              {writes: []string{"größe 表 👩‍👧\n"}, want: "größe 表 👩‍👧\n"},
		"a title is escaped":                         {writes: []string{"\x1b]0;owned\x07"}, want: `\u001b]0;owned\u0007`},
		"a clear screen is escaped on a terminal":    {colour: true, writes: []string{"\x1b[2J"}, want: `\u001b[2J`},
		"a colour passes on a terminal":              {colour: true, writes: []string{"\x1b[31mred\x1b[0m"}, want: "\x1b[31mred\x1b[0m"},
		"a colour is escaped elsewhere":              {writes: []string{"\x1b[31m"}, want: `\u001b[31m`},
		"a carriage return hides no line":            {writes: []string{"bad\rgood"}, want: `bad\u000dgood`},
		"C1, DEL and direction marks are escaped":    {writes: []string{"\u009b2J\x7f\u202e\u2066\u200f"}, want: `\u009b2J\u007f\u202e\u2066\u200f`},
		"line separators and the mark are escaped":   {writes: []string{"\u2028\u2029\ufeff"}, want: `\u2028\u2029\ufeff`},
		"tags beyond 16 bits are escaped as in JSON": {writes: []string{"\U000e0041"}, want: `\udb40\udc41`},
		"bytes that are no text are replaced":        {writes: []string{"\xff\x9b!\n"}, want: "\ufffd\ufffd!\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			o := &output{w: &b, colour: c.colour}
			for _, w := range c.writes {
				if n, err := io.WriteString(o, w); n != len(w) || err != nil {
					t.Errorf("%d, %v", n, err)
				}
			}
			if b.String() != c.want {
				t.Errorf("got %q, want %q", b.String(), c.want)
			}
		})
	}
}

func TestEscapedJSONIsTheSameDocument(t *testing.T) {
	var b bytes.Buffer
	in := map[string]string{"query": "\u009b\x7f\u202e\U000e0041\x1b\nß"}
	if err := json.NewEncoder(&output{w: &b}).Encode(in); err != nil {
		t.Fatal(err)
	}
	var out map[string]string
	if err := json.Unmarshal(b.Bytes(), &out); err != nil || out["query"] != in["query"] {
		t.Errorf("%v, %q", err, out)
	}
	if strings.ContainsAny(b.String(), "\u009b\x7f\u202e") {
		t.Errorf("%q", b.String())
	}
}

// stuck is an output that is not read until it is closed.
type stuck struct {
	logtest.Log
	read chan struct{}
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.read
	return s.Log.Write(p)
}

func TestAnUnreadLogBlocksNothingAndCountsWhatItDropped(t *testing.T) {
	s := &stuck{read: make(chan struct{})}
	l := newLogSink(s)
	line := []byte(strings.Repeat("-", 1023) + "\n")
	const lines = maxQueued + 1000
	for range lines {
		if _, err := l.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	l.close(time.Millisecond) // as the process ends
	close(s.read)
	<-l.done
	written, dropped := s.Count("---"), 0
	for _, said := range s.Lines("lines were dropped") {
		n := 0
		_, after, _ := strings.Cut(said, "count=")
		_, _ = fmt.Sscan(after, &n)
		dropped += n
	}
	if written+dropped != lines || dropped == 0 || written < maxQueued {
		t.Errorf("%d were written, and %d dropped, of %d", written, dropped, lines)
	}
}

// intoAPipe starts a command whose outputs go to a full pipe without a reader.
func (m *machine) intoAPipe(args ...string) *process {
	m.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		m.Fatal(err)
	}
	m.Cleanup(func() { _, _ = r.Close(), w.Close() })
	fill(m.T, w)
	return m.startAs(w, os.Args[0], append([]string{asDDTB}, args...)...)
}

// fill writes into a pipe until it takes no more.
func fill(t *testing.T, w *os.File) {
	t.Helper()
	if err := w.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	for err := error(nil); err == nil; {
		_, err = w.Write(make([]byte, 4096))
	}
}

func TestAServerWithAnUnreadLogAnswersAndStops(t *testing.T) {
	t.Parallel()
	m, _ := withDatabase(t, "[test]\nenabled = true\n[server]\nshutdown_timeout = \"3s\"")
	p := m.intoAPipe("runserver", "127.0.0.1:0")
	dbtest.Eventually(t, "the server answers", p.answers)
	for range 300 { // each is a line of half a kilobyte
		if status := p.get("/error/"); status != http.StatusInternalServerError {
			t.Fatalf("a failing request got %d", status)
		}
	}
	began := time.Now()
	p.stop(syscall.SIGTERM)
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it stopped after %v", took)
	}
}

func TestAServerStopsInItsTimeWithEverythingAroundItHanging(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t, dbtest.Options{})
	cfg := server.Config(t)
	m := newMachine(t)
	silent := silentServer(t)
	m.configure(cfg, fmt.Sprintf("[test]\nenabled = true\n[server]\nshutdown_timeout = \"4s\"\n"+
		"[mail]\nbackend = \"smtp\"\nhost = \"127.0.0.1\"\nport = %[1]d\ntls = \"none\"\nfrom = \"a@example.org\"\nadmins = [\"b@example.org\"]\n"+
		"[sentry]\ndsn = \"http://key@127.0.0.1:%[1]d/7\"\n[tracing]\nendpoint = \"http://127.0.0.1:%[1]d\"", silent))
	p := m.intoAPipe("runserver", "127.0.0.1:0")
	dbtest.Eventually(t, "the server answers", p.answers)
	for range 300 {
		p.get("/error/")
	}
	server.Pause(t)
	for range 3 {
		go p.get("/polls/")
	}
	began := time.Now()
	p.stop(syscall.SIGTERM)
	if took := time.Since(began); took > 5*time.Second { // a busy machine gets a second more
		t.Errorf("it stopped after %v", took)
	}
}

// silentServer takes every connection and says nothing.
func silentServer(t *testing.T) (port int) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			if _, err := l.Accept(); err != nil {
				return
			}
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

func TestACommandWithUnreadOutputEndsAfterItsSignal(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	c := &cli{in: strings.NewReader(""), out: &stuck{read: make(chan struct{})}, err: io.Discard, environ: m.environ()}
	ended := make(chan int, 1)
	ctx, signal := context.WithCancel(t.Context())
	go func() { ended <- c.run(ctx, []string{"version"}) }()
	signal()
	select {
	case code := <-ended:
		if code != exitFailed {
			t.Errorf("exit code %d", code)
		}
	case <-time.After(defaultStopWithin + 2*time.Second):
		t.Error("it goes on")
	}
}

func TestTheTextOfAForeignServerReachesNoTerminalRaw(t *testing.T) {
	t.Parallel()
	port := hostileServer(t, "\x1b]0;owned\x07\x1b[2J\u202e\u009b\nddtb: all is well")
	m := newMachine(t)
	dsn := fmt.Sprintf("host=127.0.0.1 port=%d user=x dbname=x sslmode=disable", port)
	for _, args := range []string{"status", "status --json", "health", "health --json", "doctor", "doctor --json", "budget", "monitor --json"} {
		o := m.run("", append(append([]string{"db-connections"}, strings.Fields(args)...), "--dsn", dsn)...)
		if text := o.out + o.err; strings.ContainsAny(text, "\x1b\x07\u202e\u009b\r") || strings.Contains(text, "\nddtb: all is well") || len(text) == 0 {
			t.Errorf("%s: %q", args, text)
		}
	}
	m.configure(dbtest.Config(t))
	m.write(fmt.Sprintf("[databases.default]\nname = \"x\"\nuser = \"x\"\nhost = \"127.0.0.1\"\nport = %d\nsslmode = \"disable\"\n", port))
	for _, args := range []string{"migrate", "loaddemo", "createsuperuser --noinput --username a"} {
		o := m.run("", strings.Fields(args)...)
		if text := o.out + o.err; strings.ContainsAny(text, "\x1b\x07\u202e\u009b\r") || strings.Contains(text, "\nddtb: all is well") {
			t.Errorf("%s: %q", args, text)
		}
	}
}

// hostileServer speaks as much of PostgreSQL's protocol as it takes to refuse a login with a message.
func hostileServer(t *testing.T, message string) (port int) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	body := "SFATAL\x00VFATAL\x00C28000\x00M" + message + "\x00\x00"
	answer := append(binary.BigEndian.AppendUint32([]byte{'E'}, uint32(len(body)+4)), body...)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 1024))
			_, _ = c.Write(answer)
			_ = c.Close()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

func TestAPasswordOnTheCommandLineIsWarnedOfAndOneInAFileIsNot(t *testing.T) {
	t.Parallel()
	m, cfg := withDatabase(t)
	dsn := fmt.Sprintf("postgres://%s:%s@%s:%d/%s?sslmode=disable", cfg.User, cfg.Password.Reveal(), cfg.Host, cfg.Port, cfg.Name)
	m.run("", "db-connections", "--dsn", dsn).must(exitFine, "every user of this machine can read the password", "--dsn @FILE")
	file := filepath.Join(m.home, "dsn")
	if err := os.WriteFile(file, []byte(dsn+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := m.run("", "db-connections", "--dsn", "@"+file)
	o.must(exitFine)
	if strings.Contains(o.err, "every user") {
		t.Error(o.err)
	}
	m.run("", "db-connections", "--dsn", "@"+m.home).must(exitUsage, "is a directory")
	m.run("", "db-connections", "--dsn", "@"+m.home+"/nothing").must(exitUsage, "nothing")
}
