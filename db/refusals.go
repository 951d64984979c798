package db

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"slices"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
)

// SQLSTATEs of server timeouts that pgerrcode lacks.
const transactionTimeout = "25P04"

// causeOfConnect returns why connecting failed. An error that neither the server nor the driver explains is a network
// error.
func causeOfConnect(err error) Cause {
	if own := CauseOf(err); own != "" {
		return own
	}
	if pe, ok := refusalOf(err); ok {
		return causeOfAnswer(pe)
	}
	err = withoutOptionalTLS(err)
	_, secret := errors.AsType[*secretError](err)
	switch {
	case secret, errors.Is(err, errNoPassword):
		return LoginRejected
	case isCertificate(err):
		return CertificateRejected
	case isTLS(err):
		return TLSRefused
	case errors.Is(err, pgconn.ErrReadOnlyConnection), errors.Is(err, pgconn.ErrReadWriteConnection),
		errors.Is(err, pgconn.ErrPrimaryConnection), errors.Is(err, pgconn.ErrStandbyConnection):
		return NoSuitableServer
	}
	return ServerUnavailable
}

// attempts returns the errors of a connect: one for each address, and for each with and without TLS.
func attempts(err error) []error {
	ce, ok := errors.AsType[*pgconn.ConnectError](err)
	if !ok {
		return []error{err}
	}
	if joined, ok := ce.Unwrap().(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{ce.Unwrap()}
}

// refusalOf returns the server's answer that says why connecting failed. With sslmode prefer and allow, pg_hba.conf may
// exclude one of the two attempts, with or without TLS: then the other one's answer counts.
func refusalOf(err error) (first *pgconn.PgError, ok bool) {
	for _, attempt := range attempts(err) {
		pe, ok := errors.AsType[*pgconn.PgError](attempt)
		if ok && pe.Code != pgerrcode.InvalidAuthorizationSpecification {
			return pe, true
		}
		if ok && first == nil {
			first = pe
		}
	}
	return first, first != nil
}

// withoutOptionalTLS drops refused TLS from the errors of a connect that went on without TLS: what ended that attempt,
// such as a server that restarts, is the reason.
func withoutOptionalTLS(err error) error {
	ce, ok := errors.AsType[*pgconn.ConnectError](err)
	if !ok || !plainAllowed(ce.Config) {
		return err
	}
	rest := slices.DeleteFunc(slices.Clone(attempts(err)), func(e error) bool { return isTLS(e) || isCertificate(e) })
	if len(rest) == 0 {
		return err
	}
	return errors.Join(rest...)
}

// plainAllowed reports whether a host may be reached without TLS over the network.
func plainAllowed(c *pgconn.Config) bool {
	plain := func(host string, t *tls.Config) bool { return t == nil && !strings.HasPrefix(host, "/") }
	return plain(c.Host, c.TLSConfig) || slices.ContainsFunc(c.Fallbacks, func(f *pgconn.FallbackConfig) bool { return plain(f.Host, f.TLSConfig) })
}

// causeOfAnswer returns why the server refused a login or ended a session. The server answered, so only an error about
// its shutdown or start is ServerUnavailable.
func causeOfAnswer(pe *pgconn.PgError) Cause {
	switch code := pe.Code; {
	case ByPooler(pe):
		cause, _ := ofPooler(pe)
		return cause
	case code == pgerrcode.TooManyConnections:
		return SlotsExhausted
	case code == pgerrcode.InsufficientPrivilege && pe.Routine != checksDatabase: // to set a parameter
		return SettingRefused
	case pgerrcode.IsInvalidAuthorizationSpecification(code), code == pgerrcode.InvalidCatalogName,
		code == pgerrcode.InsufficientPrivilege, code == pgerrcode.ObjectNotInPrerequisiteState: // datallowconn
		return LoginRejected
	case pgerrcode.IsDataException(code), pgerrcode.IsSyntaxErrororAccessRuleViolation(code),
		code == pgerrcode.CantChangeRuntimeParam:
		return SettingRefused
	case code == transactionTimeout, code == pgerrcode.IdleInTransactionSessionTimeout, code == pgerrcode.QueryCanceled:
		return ServerTimeout
	}
	return ServerUnavailable
}

// isCertificate reports whether TLS failed because of a certificate: the server's, or, by the alert that the server
// sent, ours. The alert's type is not exported; its text is Go's own, and is never translated.
func isCertificate(err error) bool {
	_, verification := errors.AsType[*tls.CertificateVerificationError](err)
	_, authority := errors.AsType[x509.UnknownAuthorityError](err)
	_, host := errors.AsType[x509.HostnameError](err)
	_, invalid := errors.AsType[x509.CertificateInvalidError](err)
	alert, ok := remoteAlert(err)
	return verification || authority || host || invalid || ok && strings.Contains(alert, "certificate")
}

// isTLS reports whether the two sides can't agree on TLS. The driver has no type for a server without TLS; its text is
// never translated.
func isTLS(err error) bool {
	_, header := errors.AsType[tls.RecordHeaderError](err)
	_, alert := remoteAlert(err)
	return header || alert || strings.Contains(err.Error(), "server refused TLS connection") ||
		strings.Contains(err.Error(), "channel binding") // required, and not offered
}

// remoteAlert returns the TLS alert that the server sent.
func remoteAlert(err error) (text string, ok bool) {
	e, ok := errors.AsType[*net.OpError](err)
	if !ok || e.Op != "remote error" && e.Op != "local error" {
		return "", false
	}
	return e.Err.Error(), true
}
