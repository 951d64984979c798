package report

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"slices"
	"strings"
	"syscall"
	"time"

	gomail "github.com/wneessen/go-mail"

	"ddtb/config"
)

const (
	smtpTimeout = 15 * time.Second // of each step of a conversation
	smtpTotal   = time.Minute      // of all conversations about one mail
	// smtpAnswers is the maximum number of bytes from a server in a conversation, and so in a line. A typical server
	// sends 1 kB, and up to 10 kB of certificates.
	smtpAnswers = 64 << 10
	dialTimeout = 10 * time.Second
)

// smtpBackend opens a connection for each mail: mails are rare.
type smtpBackend struct {
	cfg   config.Mail
	roots *x509.CertPool // nil: those that the machine trusts
}

// send sends the mail to each recipient separately: a refused recipient does not affect the others.
func (b smtpBackend) send(ctx context.Context, m *mail) error {
	ctx, cancel := context.WithTimeout(ctx, smtpTotal)
	defer cancel() // closes the connection, which the library leaves open when the greeting, TLS or the login fails
	var later []error
	m.to = slices.DeleteFunc(slices.Clone(m.to), func(to string) bool {
		err := b.sendTo(ctx, m, to)
		switch {
		case err == nil:
			m.reached = true
			return true
		case temporary(err):
			later = append(later, fmt.Errorf("%w (to %s)", err, to))
			return false
		}
		m.refused = append(m.refused, fmt.Errorf("%w (to %s)", err, to))
		return true
	})
	return errors.Join(append(later, m.refused...)...)
}

func (b smtpBackend) sendTo(ctx context.Context, m *mail, to string) error {
	msg, err := m.msg(to)
	if err != nil {
		return err
	}
	client, err := gomail.NewClient(b.cfg.Host, b.options(ctx)...)
	if err != nil {
		return err
	}
	err = client.DialAndSendWithContext(ctx, msg)
	switch refused := msg.SendError(); {
	case msg.IsDelivered():
		return nil // after the server has accepted the mail, a failure must not send it again
	case refused != nil:
		return refused // without what failed after it
	}
	return err
}

func (b smtpBackend) options(ctx context.Context) []gomail.Option {
	secure := &tls.Config{ServerName: b.cfg.Host, RootCAs: b.roots, MinVersion: tls.VersionTLS12}
	dial := dialUntil(ctx, smtpAnswers)
	policy := map[string]gomail.TLSPolicy{"tls": gomail.TLSOpportunistic, "starttls": gomail.TLSMandatory, "none": gomail.NoTLS}[b.cfg.TLS]
	if b.cfg.TLS == "tls" { // the library sees by its type that the connection is encrypted; the first read shakes hands
		plain := dial
		dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := plain(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return tls.Client(conn, secure), nil
		}
	}
	options := []gomail.Option{
		gomail.WithPort(b.cfg.Port), gomail.WithTimeout(smtpTimeout), gomail.WithTLSPolicy(policy), gomail.WithTLSConfig(secure),
		gomail.WithDialContextFunc(dial), gomail.WithoutNoop(),
	}
	if b.cfg.User != "" { // without TLS the library picks no login that shows the password
		options = append(options, gomail.WithSMTPAuth(gomail.SMTPAuthAutoDiscover),
			gomail.WithUsername(b.cfg.User), gomail.WithPassword(b.cfg.Password.Reveal()))
	}
	return options
}

// dialUntil dials connections that are closed when ends is done, whatever the peer does: the libraries' deadlines only
// limit single steps. At most mostRead bytes are read from a connection.
func dialUntil(ends context.Context, mostRead int) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		defer context.AfterFunc(ends, cancel)()
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &boundedConn{conn, context.AfterFunc(ends, func() { _ = conn.Close() }), mostRead}, nil
	}
}

type boundedConn struct {
	net.Conn
	forget func() bool
	left   int // bytes to read
}

func (c *boundedConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, fmt.Errorf("the server sent more than %d bytes in one conversation", smtpAnswers)
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

func (c *boundedConn) Close() error {
	c.forget()
	return c.Conn.Close()
}

// temporary reports whether the same mail may be accepted later: after a 4xx and after network errors. A 5xx reply, a
// bad certificate and wrong settings are permanent. Of several errors one that may pass is enough.
func temporary(err error) bool {
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		return slices.ContainsFunc(several.Unwrap(), temporary)
	}
	_, passes := diagnose(config.Mail{}, err)
	return passes && !strings.HasPrefix(err.Error(), "mail.") // a setting of ours
}

// explain returns an error of smtpBackend with advice, for a terminal.
func explain(cfg config.Mail, scrub *scrubber, err error) error {
	server := net.JoinHostPort(cfg.Host, fmt.Sprint(cfg.Port))
	remedy, _ := diagnose(cfg, err)
	return fmt.Errorf("the mail was not sent over %s: %s. %s", server, line(scrub.clean(err.Error())), remedy)
}

// diagnose returns what to do about an error, and whether it may pass by itself.
func diagnose(cfg config.Mail, err error) (remedy string, passes bool) {
	send, _ := errors.AsType[*gomail.SendError](err)
	if send != nil && send.ErrorCode() != 0 {
		return remedyForAnswer(cfg, send.ErrorCode(), send), send.ErrorCode() < 500
	}
	if login, ok := errors.AsType[*textproto.Error](err); ok {
		return remedyForAnswer(cfg, login.Code, send), login.Code < 500
	}
	says := func(text string) bool { return strings.Contains(err.Error(), text) } // the library's errors without a value
	network, _ := errors.AsType[net.Error](err)
	switch {
	case says("target host does not support STARTTLS"):
		return "The server has no STARTTLS on this port. Set mail.tls to \"tls\" (mostly port 465), or to \"none\" if the network is safe.", false
	case is[tls.RecordHeaderError](err):
		return "The server does not begin with TLS on this port. Set mail.tls to \"starttls\" (mostly port 587 or 25).", false
	case is[*tls.CertificateVerificationError](err) || is[x509.HostnameError](err) || is[x509.UnknownAuthorityError](err):
		return "Its certificate is not good for this name. Set mail.host to the name in the certificate, or make this machine trust the server's authority.", false
	case errors.Is(err, gomail.ErrNoSupportedAuthDiscovered):
		return "It offers no login that is safe without encryption. Set mail.tls to \"starttls\" or \"tls\".", false
	case says("server does not support SMTP AUTH"):
		return "The server takes no login on this port. Leave mail.user empty, or use the port for submission (587 or 465).", false
	case is[*net.DNSError](err):
		return fmt.Sprintf("No address was found for mail.host %q: check its spelling.", cfg.Host), true
	case errors.Is(err, syscall.ECONNREFUSED):
		return "Nothing listens there: is the mail server running, and is mail.port right? Usual are 587 with tls = \"starttls\", 465 with \"tls\", 25.", true
	case network != nil && network.Timeout() || errors.Is(err, context.DeadlineExceeded):
		return "It did not answer in time. A firewall may drop the packets; a port that begins with TLS (465) is silent unless mail.tls is \"tls\".", true
	}
	return "The connection broke. The server's log may say why.", true
}

// remedyForAnswer returns what to do about a server's reply code. send is nil before the mail, as at the login.
func remedyForAnswer(cfg config.Mail, c int, send *gomail.SendError) string {
	switch {
	case c == 535 || c == 534 || c == 454 && send == nil:
		return fmt.Sprintf("The server rejects the login: check mail.user (%q) and the content of mail.password_file (%d characters).", cfg.User, len(cfg.Password))
	case c == 530 || c == 502 && send != nil:
		return "The server wants a login, or encryption before it: set mail.user and mail.password_file, and mail.tls."
	case c < 500:
		return "The server asks to try again later. Mails about failures are tried again for about ten minutes."
	case send != nil && send.Reason == gomail.ErrSMTPMailFrom:
		return fmt.Sprintf("The server rejects this sender: check mail.from (%q).", cfg.From)
	case send != nil && send.Reason == gomail.ErrSMTPRcptTo:
		return fmt.Sprintf("The server rejects a recipient: check mail.admins (%s). If it says that it does not relay, it wants a login: mail.user.",
			strings.Join(cfg.Admins, ", "))
	}
	return "The server refuses this mail for good; its answer says why."
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}
