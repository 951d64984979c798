package report

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"strings"
	"syscall"
	"time"

	mail "github.com/wneessen/go-mail"

	"ddtb/config"
)

// smtpTimeout bounds each step of the conversation with the mail server, smtpTotal all of them.
const (
	smtpTimeout = 15 * time.Second
	smtpTotal   = time.Minute
)

// smtpBackend opens a connection for each mail: there are few, and one that is kept would be dead when needed.
type smtpBackend struct {
	cfg   config.Mail
	roots *x509.CertPool // whom to trust; nil: whom the machine trusts
}

func (b smtpBackend) tls() *tls.Config {
	return &tls.Config{ServerName: b.cfg.Host, RootCAs: b.roots, MinVersion: tls.VersionTLS12}
}

func (b smtpBackend) send(ctx context.Context, m *message) error {
	err := b.sendTo(ctx, m, m.to)
	if len(m.to) == 1 || !refusedRecipient(err) {
		return err
	}
	return b.sendEach(ctx, m)
}

// sendEach sends a mail of its own to each recipient, after the server refused one of them: the others are to
// get it all the same.
func (b smtpBackend) sendEach(ctx context.Context, m *message) error {
	var failed []error
	var left []string
	for _, to := range m.to {
		err := b.sendTo(ctx, m, []string{to})
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", to, err))
		}
		if err != nil && temporary(err) {
			left = append(left, to)
		}
	}
	m.to = left
	return errors.Join(failed...)
}

func (b smtpBackend) sendTo(ctx context.Context, m *message, to []string) error {
	msg, err := m.msg(to)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, smtpTotal)
	defer cancel() // cuts the connection: the library leaves it open when the greeting, TLS or the login fails
	client, err := mail.NewClient(b.cfg.Host, b.options(ctx)...)
	if err != nil {
		return err
	}
	conn, err := client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		return err
	}
	err = client.SendWithSMTPClient(conn, msg)
	if msg.IsDelivered() {
		err = nil // what fails after the server took it must not send it again
	}
	_ = client.CloseWithSMTPClient(conn)
	return err
}

func (b smtpBackend) options(ctx context.Context) []mail.Option {
	dial := dialUntil(ctx)
	policy := mail.NoTLS
	switch b.cfg.TLS {
	case "tls":
		// The library takes a connection for encrypted only if it negotiates itself, or sees it to be TLS's.
		policy, dial = mail.TLSOpportunistic, dialTLS(dial, b.tls())
	case "starttls":
		policy = mail.TLSMandatory
	}
	options := []mail.Option{
		mail.WithPort(b.cfg.Port), mail.WithTimeout(smtpTimeout), mail.WithTLSPolicy(policy), mail.WithTLSConfig(b.tls()),
		mail.WithDialContextFunc(dial), mail.WithoutNoop(),
	}
	if b.cfg.User != "" {
		// Picks among what the server offers; without TLS never one that sends the password in clear.
		options = append(options, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover),
			mail.WithUsername(b.cfg.User), mail.WithPassword(b.cfg.Password.Reveal()))
	}
	return options
}

func dialTLS(dial mail.DialContextFunc, cfg *tls.Config) mail.DialContextFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		secure := tls.Client(conn, cfg)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, err
		}
		return secure, nil
	}
}

func refusedRecipient(err error) bool {
	send, ok := errors.AsType[*mail.SendError](err)
	return ok && send.Reason == mail.ErrSMTPRcptTo
}

// code is what the mail server answered, or 0 when it did not.
func code(err error) int {
	if send, ok := errors.AsType[*mail.SendError](err); ok && send.ErrorCode() != 0 {
		return send.ErrorCode()
	}
	if answer, ok := errors.AsType[*textproto.Error](err); ok {
		return answer.Code
	}
	return 0
}

// temporary tells whether the same mail may pass later: after a 4xx, and after whatever the network did. A
// server's 5xx, a certificate that is not good, and wrong settings stay as they are.
func temporary(err error) bool {
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range several.Unwrap() {
			if temporary(e) {
				return true
			}
		}
		return false
	}
	if c := code(err); c != 0 {
		return c < 500
	}
	return !badCertificate(err) && !misconfigured(err)
}

func badCertificate(err error) bool {
	_, verify := errors.AsType[*tls.CertificateVerificationError](err)
	_, host := errors.AsType[x509.HostnameError](err)
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, record := errors.AsType[tls.RecordHeaderError](err)
	return verify || host || unknown || record
}

func misconfigured(err error) bool {
	return lacksStartTLS(err) || errors.Is(err, mail.ErrNoSupportedAuthDiscovered) ||
		strings.Contains(err.Error(), noAuth) || strings.HasPrefix(err.Error(), "mail.")
}

// What the library says with no error value of its own.
const (
	noAuth     = "server does not support SMTP AUTH"
	noStartTLS = "target host does not support STARTTLS"
)

func lacksStartTLS(err error) bool { return strings.Contains(err.Error(), noStartTLS) }

// explain adds to an error of smtpBackend what to do about it.
func explain(cfg config.Mail, err error) error {
	server := net.JoinHostPort(cfg.Host, fmt.Sprint(cfg.Port))
	return fmt.Errorf("the mail was not sent over %s: %w. %s", server, err, remedy(cfg, err))
}

func remedy(cfg config.Mail, err error) string {
	if c := code(err); c != 0 {
		return remedyForAnswer(cfg, c, err)
	}
	_, dns := errors.AsType[*net.DNSError](err)
	network, _ := errors.AsType[net.Error](err)
	_, notTLS := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case dns:
		return fmt.Sprintf("No address was found for mail.host %q: is it spelled right?", cfg.Host)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "Nothing listens there: is the mail server running, and is mail.port right? Usual are 587 with tls = \"starttls\", 465 with \"tls\", 25."
	case lacksStartTLS(err):
		return "The server has no STARTTLS on this port. Set mail.tls to \"tls\" (mostly port 465), or to \"none\" if the way to it is safe."
	case notTLS:
		return "The server does not begin with TLS on this port. Set mail.tls to \"starttls\" (mostly port 587 or 25)."
	case badCertificate(err):
		return "Its certificate is not good for this name. Set mail.host to the name in the certificate, or have the server's authority trusted by this machine."
	case errors.Is(err, mail.ErrNoSupportedAuthDiscovered):
		return "It offers no login that may be used without encryption, since that would show the password. Set mail.tls to \"starttls\" or \"tls\"."
	case strings.Contains(err.Error(), noAuth):
		return "The server takes no login on this port. Leave mail.user empty, or use the port for submission (587 or 465)."
	case network != nil && network.Timeout() || errors.Is(err, context.DeadlineExceeded):
		return "It did not answer in time. A firewall may drop the packets; a port that begins with TLS (465) waits silently unless mail.tls is \"tls\"."
	}
	return "The connection broke. The server's log may say why."
}

func remedyForAnswer(cfg config.Mail, c int, err error) string {
	send, _ := errors.AsType[*mail.SendError](err)
	switch {
	case c == 535 || c == 534 || c == 454 && send == nil:
		return fmt.Sprintf("The server does not take the login: check mail.user (%q) and the content of mail.password_file (%d characters).", cfg.User, len(cfg.Password))
	case c == 530 || c == 502 && send != nil:
		return "The server wants a login, or encryption before it: set mail.user and mail.password_file, and mail.tls."
	case c < 500:
		return "The server asks to try again later. Mails about failures are tried again by themselves for about ten minutes."
	case send != nil && send.Reason == mail.ErrSMTPMailFrom:
		return fmt.Sprintf("The server does not take this sender: check mail.from (%q).", cfg.From)
	case send != nil && send.Reason == mail.ErrSMTPRcptTo:
		return fmt.Sprintf("The server does not take a recipient: check mail.admins (%s). If it says that it does not relay, it wants a login: mail.user.",
			strings.Join(cfg.Admins, ", "))
	}
	return "The server refuses this mail for good; its answer says why."
}
