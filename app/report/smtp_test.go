package report

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"ddtb/config"
	"ddtb/db/logtest"
)

// mailServer is a real SMTP server. Its fields say how it behaves, and may be changed while it runs.
type mailServer struct {
	mu       sync.Mutex
	refuse   func(step, arg string) error // of "mail", "rcpt", "data", "auth"; nil: takes everything
	hang     chan struct{}                // in DATA until it is closed
	drop     int                          // so many connections are cut in the middle of DATA
	dropLate bool                         // connections are cut when the mail was taken, before the client says goodbye
	password string                       // "": no login

	implicitTLS bool // else STARTTLS, if there is a certificate
	mails       [][]byte
	rcpts       []string
	tries       int
	host        string
	port        int
}

func startMailServer(t *testing.T, m *mailServer, configure func(*smtp.Server)) *mailServer {
	t.Helper()
	s := smtp.NewServer(m)
	s.Domain, s.ErrorLog = "localhost", log.New(io.Discard, "", 0)
	if configure != nil {
		configure(s)
	}
	l := listen(t)
	m.host, m.port = "127.0.0.1", l.Addr().(*net.TCPAddr).Port
	if m.implicitTLS {
		l = tls.NewListener(l, s.TLSConfig)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close(); _ = l.Close(); <-done })
	return m
}

func (m *mailServer) config() config.Mail {
	c := mailTo("smtp")
	c.Host, c.Port = m.host, m.port
	return c
}

func (m *mailServer) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.mails)
}

func (m *mailServer) attempts() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tries
}

func (m *mailServer) latest(t *testing.T) received {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.mails) == 0 {
		t.Fatal("no mail came")
	}
	return parse(t, m.mails[len(m.mails)-1])
}

func (m *mailServer) NewSession(c *smtp.Conn) (smtp.Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tries++
	s := &mailSession{server: m, conn: c}
	if m.password != "" {
		return &loginSession{s}, nil
	}
	return s, nil
}

type mailSession struct {
	server *mailServer
	conn   *smtp.Conn
	rcpts  []string
}

func (s *mailSession) Reset() {
	s.rcpts = nil
	if s.server.dropLate && s.server.count() > 0 {
		_ = s.conn.Conn().Close()
	}
}

func (s *mailSession) Logout() error { return nil }

func (s *mailSession) Mail(from string, _ *smtp.MailOptions) error {
	return s.server.answer("mail", from)
}

func (s *mailSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	if err := s.server.answer("rcpt", to); err != nil {
		return err
	}
	s.rcpts = append(s.rcpts, to)
	return nil
}

func (m *mailServer) answer(step, arg string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refuse == nil {
		return nil
	}
	return m.refuse(step, arg)
}

func (s *mailSession) Data(r io.Reader) error {
	m := s.server
	if err := m.answer("data", ""); err != nil {
		return err
	}
	m.mu.Lock()
	drop, hang := m.drop > 0, m.hang
	m.drop--
	m.mu.Unlock()
	if drop {
		_, _ = io.ReadFull(r, make([]byte, 10))
		return s.conn.Close()
	}
	if hang != nil {
		<-hang
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mails, m.rcpts = append(m.mails, data), append(m.rcpts, s.rcpts...)
	return nil
}

// loginSession is a session with AUTH PLAIN, for the user "ddtb".
type loginSession struct{ *mailSession }

func (s *loginSession) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *loginSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != "ddtb" || password != s.server.password {
			return smtp.ErrAuthFailed
		}
		return nil
	}), nil
}

func TestAFailureIsOneMailOverSMTP(t *testing.T) {
	server := startMailServer(t, &mailServer{}, nil)
	r := open(t, Options{Mail: server.config()})
	concurrently(200, func(int) { r.Report(busy("/polls/")) })
	shut(t, r)
	equal(t, "mails", server.count(), 1)
	m := server.latest(t)
	equal(t, "subject", m.subject, "[ddtb] pool timeout on /polls/ (web1)")
	equal(t, "to", m.to, "<ops@example.org>")
	equal(t, "header", m.header.Get("Auto-Submitted"), "auto-generated")
	contains(t, "text", m.text, "What happened", "Why", "What to do", "What comes next", "pool.max_size", "GET /polls/",
		"line: main_test.go:", "report.unreachable", "12.3 s  handlers.go:7", "11 other requests waited",
		"https://polls.example.org/admin/connections/", "couldn't get a connection after 10.00 sec", "the only mail about it for now")
}

func TestEveryFailingWayOfAServerIsTriedAgainOrGivenUp(t *testing.T) {
	later := &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 7, 1}, Message: "greylisted"}
	never := &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "not here"}
	times := func(n int, step string, err error) func(string, string) error {
		return func(s, _ string) error {
			if s != step || n == 0 {
				return nil
			}
			n--
			return err
		}
	}
	for _, c := range []struct {
		name         string
		server       *mailServer
		tries, mails int
	}{
		{"the sender is refused for now", &mailServer{refuse: times(2, "mail", later)}, 3, 1},
		{"the recipient is refused for now", &mailServer{refuse: times(2, "rcpt", later)}, 3, 1},
		{"the mail is refused for now", &mailServer{refuse: times(2, "data", later)}, 3, 1},
		{"the connection is dropped in the middle", &mailServer{drop: 2}, 3, 1},
		{"the connection is dropped when the mail was taken", &mailServer{dropLate: true}, 1, 1},
		{"it is never taken", &mailServer{refuse: times(100, "mail", later)}, maxTries, 0},
		{"the sender is refused for good", &mailServer{refuse: times(100, "mail", never)}, 1, 0},
		{"the mail is refused for good", &mailServer{refuse: times(100, "data", never)}, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			startMailServer(t, c.server, nil)
			synctest.Test(t, func(t *testing.T) { // so that the pauses between the tries cost nothing
				m := c.server.config()
				m.Limit.Window = 24 * time.Hour
				r := open(t, Options{Mail: m})
				r.Report(busy("/polls/"))
				pass(time.Hour)
				equal(t, "tries", c.server.attempts(), c.tries)
				equal(t, "mails", c.server.count(), c.mails)
				c.server.mu.Lock()
				c.server.refuse = nil
				c.server.mu.Unlock()
				shut(t, r)
				if c.mails == 0 {
					equal(t, "counted again", r.state.Groups[outageKey].Pending, 1)
				}
			})
		})
	}
}

func TestTheMailOfAnEndIsSentAfterThatOfTheBeginning(t *testing.T) {
	refusals := 3 // about 42 seconds
	server := startMailServer(t, &mailServer{refuse: func(step, _ string) error {
		if step == "mail" && refusals > 0 {
			refusals--
			return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 7, 1}, Message: "greylisted"}
		}
		return nil
	}}, nil)
	synctest.Test(t, func(t *testing.T) {
		r := open(t, Options{Mail: server.config()})
		r.Report(busy("/polls/"))
		pass(time.Second)
		for range 10 {
			r.Healthy()
			pass(time.Second)
		}
		equal(t, "mails while the first one waits for its next try", server.count(), 0)
		pass(2 * time.Minute)
		shut(t, r)
	})
	equal(t, "mails", server.count(), 2)
	equal(t, "the first", parse(t, server.mails[0]).subject, "[ddtb] pool timeout on /polls/ (web1)")
	equal(t, "the second", parse(t, server.mails[1]).subject, "[ddtb] Recovered: connections again after 1s, 1 request failed (web1)")
}

func TestAMailKeepsItsIdFromTryToTry(t *testing.T) {
	m := newReporter(Options{Mail: mailTo("smtp"), Hostname: "web 1\r\nX-Evil: 1"}).testMail()
	ids := map[string]bool{}
	for range 2 {
		msg, err := m.msg(m.to...)
		if err != nil {
			t.Fatal(err)
		}
		var raw bytes.Buffer
		if _, err := msg.WriteTo(&raw); err != nil {
			t.Fatal(err)
		}
		ids[parse(t, raw.Bytes()).id] = true
	}
	equal(t, "ids", len(ids), 1)
}

func TestOneBadRecipientKeepsNothingFromTheOthers(t *testing.T) {
	server := startMailServer(t, &mailServer{refuse: func(step, arg string) error {
		if step == "rcpt" && strings.HasPrefix(arg, "gone@") {
			return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
		}
		return nil
	}}, nil)
	var out console
	synctest.Test(t, func(t *testing.T) {
		c := server.config()
		c.Admins = []string{"a@example.org", "gone@example.org", "Bea <b@example.org>"}
		r := open(t, Options{Mail: c, Log: logTo(&out)})
		r.Report(busy("/polls/"))
		pass(time.Hour) // a failure that was reported is not reported again
		equal(t, "mails sent", r.Stat().MailsSent, 1)
		shut(t, r)
	})
	equal(t, "who got it", strings.Join(server.rcpts, " "), "a@example.org b@example.org")
	contains(t, "the log", out.String(), "gone@example.org", "no such user")
}

func TestAServerThatHangsDelaysNeitherReportNorClose(t *testing.T) {
	hang := make(chan struct{})
	server := startMailServer(t, &mailServer{hang: hang}, nil)
	t.Cleanup(func() { close(hang) })
	r, err := New(Options{Mail: server.config(), Log: logTo(io.Discard)})
	if err != nil {
		t.Fatal(err)
	}
	r.Report(busy("/polls/"))
	eventually(t, "the server hangs", func() bool { return server.attempts() == 1 })
	concurrently(1000, func(i int) { r.Report(bug(i % 10)) })
	mustCloseWithin(t, r, time.Second)
	if again := r.Close(t.Context()); !errors.Is(again, context.DeadlineExceeded) {
		t.Errorf("the second time: %v", again)
	}
}

func TestAServerThatNeverGreetsDelaysNeitherReportNorClose(t *testing.T) {
	l := listen(t) // its backlog accepts the connection, without a response
	defer func() { _ = l.Close() }()
	m := mailTo("smtp")
	m.Port = l.Addr().(*net.TCPAddr).Port
	r, err := New(Options{Mail: m, Log: logTo(io.Discard)})
	if err != nil {
		t.Fatal(err)
	}
	r.Report(busy("/polls/"))
	mustCloseWithin(t, r, time.Second)
}

// mustCloseWithin closes r, which has mails that it can't send.
func mustCloseWithin(t *testing.T, r *Reporter, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := r.Close(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "not sent before the stop") {
		t.Errorf("got %v", err)
	}
	if ctx.Err() != nil {
		t.Error("it took longer than it may")
	}
}

// hostile is a server that answers each command with what says says.
func hostile(t *testing.T, says func(command string, to net.Conn)) config.Mail {
	t.Helper()
	l := listen(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			says("", c)
			for lines := bufio.NewScanner(c); lines.Scan(); {
				says(lines.Text(), c)
			}
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	m := mailTo("smtp")
	m.Port = l.Addr().(*net.TCPAddr).Port
	return m
}

// endless writes until the other side closes.
func endless(what string, to net.Conn) {
	chunk := []byte(strings.Repeat(what, 1000))
	for {
		if _, err := to.Write(chunk); err != nil {
			return
		}
	}
}

// answer is what a server says that takes every mail.
func answer(command string, to net.Conn) {
	says := "250 ok"
	switch word, _, _ := strings.Cut(command, " "); word {
	case "":
		says = "220 hello"
	case "EHLO":
		says = "250-hello\r\n250 STARTTLS"
	case "STARTTLS":
		says = "220 go on"
	case "DATA":
		says = "354 go on"
	case ".", "MAIL", "RCPT", "QUIT", "RSET":
	default: // a line of the mail
		return
	}
	_, _ = io.WriteString(to, says+"\r\n")
}

func TestWhatAHostileServerSendsIsBounded(t *testing.T) {
	for _, c := range []struct{ name, tls, at, says string }{
		{"an endless line as its greeting", "none", "", "2"},
		{"an endless line after EHLO", "none", "EHLO", "x"},
		{"endless lines after EHLO", "none", "EHLO", "250-x\r\n"},
		{"endless lines after RCPT", "none", "RCPT", "550-x\r\n"},
		{"an endless line after the mail", "none", ".", "250"},
		{"endless bytes where TLS begins", "tls", "", "\x16"},
		{"endless bytes after STARTTLS", "starttls", "STARTTLS", "\x16"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := hostile(t, func(command string, to net.Conn) {
				word, _, _ := strings.Cut(command, " ")
				if word != c.at || c.at == "STARTTLS" {
					answer(command, to)
				}
				if word == c.at {
					endless(c.says, to)
				}
			})
			m.TLS = c.tls
			before := allocated()
			err := SendTest(t.Context(), Options{Mail: m})
			if grown := allocated() - before; grown > 4<<20 {
				t.Errorf("%d kB were allocated", grown>>10)
			}
			if err == nil {
				t.Fatal("it was sent")
			}
			if len(err.Error()) > 1000 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}

func TestAConversationIsBoundedInTime(t *testing.T) {
	m := hostile(t, func(command string, to net.Conn) {
		if command == "" {
			_, _ = io.WriteString(to, "220 hello\r\n")
		}
	})
	r := newReporter(Options{Mail: m})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := (smtpBackend{cfg: m}).send(ctx, r.testMail()); err == nil {
		t.Fatal("it was sent")
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestAServerThatRepeatsTheLoginWritesItIntoNoLog(t *testing.T) {
	const password = "correct horse 17"
	m := hostile(t, func(command string, to net.Conn) {
		switch {
		case command == "":
			_, _ = io.WriteString(to, "220 hello\r\n")
		case strings.HasPrefix(command, "EHLO"):
			_, _ = io.WriteString(to, "250-hello\r\n250 AUTH CRAM-MD5\r\n")
		default:
			_, _ = fmt.Fprintf(to, "500 \x1b[2J not known: AUTH PLAIN AGRkdGIAY29ycmVjdCBob3JzZSAxNw== %s %s %s\r\n",
				command, password, base64.StdEncoding.EncodeToString([]byte(password)))
		}
	})
	m.User, m.Password = "ddtb", password
	err := SendTest(t.Context(), Options{Mail: m})
	if err == nil {
		t.Fatal("it was sent")
	}
	lacks(t, "the error", err.Error(), "horse", "Y29ycmVjdCBob3JzZSAxNw", "AGRkdGIA", "\x1b")
	var log logtest.Log
	r := open(t, Options{Mail: m, Log: logTo(&log)})
	r.Report(bug(1))
	shut(t, r)
	lacks(t, "the log", log.String(), "horse", "Y29ycmVjdCBob3JzZSAxNw", "AGRkdGIA", "\x1b")
	contains(t, "the log", log.String(), "a mail about failures was not sent", "not known")
}

func TestAMailIsSentBeforeTheStopThoughItWaitedForItsNextTry(t *testing.T) {
	server := startMailServer(t, &mailServer{drop: 1}, nil)
	r := open(t, Options{Mail: server.config()})
	r.Report(busy("/polls/"))
	eventually(t, "the first try", func() bool { return server.attempts() == 1 })
	shut(t, r)
	equal(t, "mails", server.count(), 1)
}

func TestEncryptionAndLogin(t *testing.T) {
	cert, trusted := certificate(t)
	encrypted := func(s *smtp.Server) { s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}} }
	inClear := func(s *smtp.Server) { s.AllowInsecureAuth = true }
	const password = "right horse"
	for _, c := range []struct {
		name, tls      string
		user, password string // of the client
		server         *mailServer
		configure      func(*smtp.Server)
		roots          *x509.CertPool
		want           string // what to do; "": it is sent
	}{
		{"STARTTLS", "starttls", "", "", &mailServer{}, encrypted, trusted, ""},
		{"TLS", "tls", "", "", &mailServer{implicitTLS: true}, encrypted, trusted, ""},
		{"a login over STARTTLS", "starttls", "ddtb", password, &mailServer{password: password}, encrypted, trusted, ""},
		{"a login over TLS", "tls", "ddtb", password, &mailServer{password: password, implicitTLS: true}, encrypted, trusted, ""},
		{"a wrong password", "tls", "ddtb", "wrong horse", &mailServer{password: password, implicitTLS: true}, encrypted, trusted, "the content of mail.password_file (11 characters)"},
		{"a login where none is taken", "starttls", "ddtb", password, &mailServer{}, encrypted, trusted, "The server takes no login on this port"},
		{"a password is not sent in clear", "none", "ddtb", password, &mailServer{password: password}, inClear, nil, "It offers no login that is safe without encryption"},
		{"STARTTLS with a certificate that nobody trusts", "starttls", "", "", &mailServer{}, encrypted, nil, "Its certificate is not good for this name"},
		{"TLS with a certificate that nobody trusts", "tls", "", "", &mailServer{implicitTLS: true}, encrypted, nil, "Its certificate is not good for this name"},
		{"STARTTLS where there is none", "starttls", "", "", &mailServer{}, nil, nil, "The server has no STARTTLS on this port"},
		{"TLS where STARTTLS is meant", "tls", "", "", &mailServer{}, encrypted, trusted, "The server does not begin with TLS on this port"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := startMailServer(t, c.server, c.configure).config()
			m.TLS, m.User, m.Password = c.tls, c.user, config.Secret(c.password)
			r := newReporter(Options{Mail: m, Hostname: "web1"})
			err := smtpBackend{m, c.roots}.send(t.Context(), r.testMail())
			equal(t, "sent", err == nil, c.want == "")
			if err == nil {
				equal(t, "mails", c.server.count(), 1)
				return
			}
			equal(t, "worth another try", temporary(err), false)
			explained := explain(m, r.scrub, err).Error()
			contains(t, "the error", explained, c.want, "the mail was not sent over 127.0.0.1:")
			lacks(t, "the error", explained, "horse")
		})
	}
}

func TestTheTestMailSaysWhatToDoWhenItFails(t *testing.T) {
	refuse := func(step string, code int) *mailServer {
		return &mailServer{refuse: func(s, _ string) error {
			if s != step {
				return nil
			}
			return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 7, 1}, Message: "no"}
		}}
	}
	for _, c := range []struct {
		name   string
		server *mailServer
		want   string
	}{
		{"the sender", refuse("mail", 553), `check mail.from ("ddtb@localhost")`},
		{"the recipient", refuse("rcpt", 550), "check mail.admins (ops@example.org)"},
		{"a login is wanted", refuse("mail", 530), "set mail.user and mail.password_file"},
		{"for now", refuse("data", 451), "try again later"},
		{"the mail", refuse("data", 554), "refuses this mail for good"},
	} {
		t.Run(c.name, func(t *testing.T) {
			startMailServer(t, c.server, nil)
			err := SendTest(t.Context(), Options{Mail: c.server.config()})
			if err == nil {
				t.Fatal("it was sent")
			}
			contains(t, "the error", err.Error(), c.want)
		})
	}
	for name, c := range map[string]struct {
		change func(*config.Mail)
		want   string
	}{
		"no backend":         {func(m *config.Mail) { m.Backend = "none" }, `Set it to "smtp"`},
		"no recipient":       {func(m *config.Mail) { m.Admins = nil }, "Set it to the recipients"},
		"nobody listens":     {func(m *config.Mail) { m.Port = closedPort(t) }, "is the mail server running"},
		"no such host":       {func(m *config.Mail) { m.Host = "mail.invalid" }, "check its spelling"},
		"a sender of no use": {func(m *config.Mail) { m.From = "x" }, "mail.from"},
	} {
		t.Run(name, func(t *testing.T) {
			m := mailTo("smtp")
			c.change(&m)
			err := SendTest(t.Context(), Options{Mail: m})
			if err == nil {
				t.Fatal("it was sent")
			}
			contains(t, "the error", err.Error(), c.want)
		})
	}
}

func TestATestMailArrives(t *testing.T) {
	server := startMailServer(t, &mailServer{}, nil)
	if err := SendTest(t.Context(), Options{Mail: server.config(), Hostname: "web1"}); err != nil {
		t.Fatal(err)
	}
	m := server.latest(t)
	equal(t, "subject", m.subject, "[ddtb] This is a test (web1)")
	contains(t, "text", m.text, "the mail settings work", "Nothing failed")
}

func TestTheFileBackendWritesOneFileAMailThatOnlyItsOwnerReads(t *testing.T) {
	m := mailTo("file")
	m.Dir = filepath.Join(t.TempDir(), "mails")
	r := open(t, Options{Mail: m})
	r.Report(busy("/polls/"))
	r.Report(bug(1))
	shut(t, r)
	files, err := os.ReadDir(m.Dir)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "files", len(files), 2)
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "mode of "+f.Name(), info.Mode().Perm(), 0o600)
		raw, err := os.ReadFile(filepath.Join(m.Dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		contains(t, f.Name(), parse(t, raw).text, "What to do")
	}
}

func closedPort(t *testing.T) int {
	l := listen(t)
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// certificate is self-signed, for 127.0.0.1, and comes with who trusts it.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, trusted
}

func TestASettingThatIsWrongIsNotTriedAgain(t *testing.T) {
	m := mailTo("smtp")
	m.From = "x"
	r := newReporter(Options{Mail: m})
	err := smtpBackend{cfg: m}.send(t.Context(), r.testMail())
	if err == nil {
		t.Fatal("it was sent")
	}
	equal(t, "worth another try", temporary(err), false)
}

func TestARefusalForGoodIsNotTriedAgainThoughTheServerHangsUp(t *testing.T) {
	m := hostile(t, func(command string, to net.Conn) {
		if !strings.HasPrefix(command, "RCPT") {
			answer(command, to)
			return
		}
		_, _ = io.WriteString(to, "550 no such user\r\n")
		_ = to.Close()
	})
	mail := newReporter(Options{Mail: m}).testMail()
	err := smtpBackend{cfg: m}.send(t.Context(), mail)
	if err == nil {
		t.Fatal("it was sent")
	}
	equal(t, "worth another try", temporary(err), false)
	equal(t, "recipients for another try", len(mail.to), 0)
}

func TestATemporarilyRefusedRecipientMakesNoOtherGetTheMailTwice(t *testing.T) {
	refusals := 2
	server := &mailServer{refuse: func(step, arg string) error {
		if step == "rcpt" && strings.HasPrefix(arg, "gone@") {
			return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
		}
		if step == "rcpt" && strings.HasPrefix(arg, "grey@") && refusals > 0 {
			refusals--
			return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 7, 1}, Message: "greylisted"}
		}
		return nil
	}}
	startMailServer(t, server, nil)
	var out console
	synctest.Test(t, func(t *testing.T) {
		m := server.config()
		m.Admins = []string{"a@example.org", "grey@example.org", "gone@example.org", "b@example.org"}
		r := open(t, Options{Mail: m, Log: logTo(&out)})
		r.Report(busy("/polls/"))
		pass(time.Hour)
		shut(t, r)
	})
	equal(t, "who got it", strings.Join(server.rcpts, " "), "a@example.org b@example.org grey@example.org")
	_, end, _ := strings.Cut(out.String(), "a mail did not reach all recipients")
	contains(t, "the last line of the log", end, "(to gone@example.org)")
}
