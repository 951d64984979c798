package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/app/fault"
	"ddtb/db"
)

// Session is a new session. Secret must only be stored in the cookie.
type Session struct {
	Secret  string
	Expires time.Time
}

// secretSize is 256 bits, which can't be guessed, so that a fast hash is enough.
const secretSize = 32

type secretHash [sha256.Size]byte

func newSecret() string {
	b := make([]byte, secretSize)
	rand.Read(b) // never fails: it ends the program instead
	return base64.RawURLEncoding.EncodeToString(b)
}

// hashSecret rejects malformed secrets, so that an invalid cookie costs no query.
func hashSecret(secret string) (secretHash, bool) {
	b, err := base64.RawURLEncoding.DecodeString(secret)
	if err != nil || len(b) != secretSize {
		return secretHash{}, false
	}
	return sha256.Sum256(b), true
}

// ErrWrongLogin does not say which part was wrong, or whether the user exists. RefusalReason does, for the log.
var ErrWrongLogin = fault.New(fault.Forbidden,
	"Please enter the correct username and password for a staff account. Note that both fields may be case-sensitive.")

// refusedError is ErrWrongLogin with the details for the log.
type refusedError struct{ username, reason string }

func (e *refusedError) Error() string { return ErrWrongLogin.Error() }
func (e *refusedError) Unwrap() error { return ErrWrongLogin }

// RefusalReason returns why Login refused, for the log only. The username is "" if there is no such user, because the
// input may be a password.
func RefusalReason(err error) (username, reason string) {
	if e, ok := errors.AsType[*refusedError](err); ok {
		return e.username, e.reason
	}
	return "", err.Error()
}

// Login starts a session for a staff member, and ends the session with the secret old, if any. It returns
// ErrWrongLogin, or TooManyTries after repeated failures of this name from this address.
func (s *Service) Login(ctx context.Context, username, password, address, old string) (Session, error) {
	username = NormalUsername(username)
	if ValidateUsername(username) != "" { // PostgreSQL could not compare it, or the throttle would store a megabyte
		username = "" // which no user has
	}
	return s.tries.try(username, address, s.now(), func(suspicion int) (Session, error) {
		return s.login(ctx, suspicion, username, password, old)
	})
}

// login uses one of the application's connections if it gets one within tryFor, then the reserve. If the reserve
// fails too, it waits for a connection as long as any request.
func (s *Service) login(ctx context.Context, suspicion int, username, password, old string) (Session, error) {
	if s.reserve != nil {
		soon := func(ctx context.Context, fn func(context.Context, db.Querier) error) error {
			ctx, cancel := context.WithTimeout(ctx, tryFor)
			defer cancel()
			return s.inTx(ctx, fn)
		}
		session, err := s.loginBy(ctx, soon, suspicion, username, password, old)
		if !cannotAsk(err) || db.CauseOf(err) == db.CircuitOpen || ctx.Err() != nil {
			return session, err
		}
		session, err = s.loginBy(ctx, s.reserve, suspicion, username, password, old)
		if kind := fault.KindOf(err); err == nil || kind != fault.Internal && kind != fault.Busy {
			return session, err
		}
	}
	return s.loginBy(ctx, s.inTx, suspicion, username, password, old)
}

func (s *Service) inTx(ctx context.Context, fn func(context.Context, db.Querier) error) error {
	return s.db.InTx(ctx, func(q db.Querier) error { return fn(ctx, q) })
}

func (s *Service) loginBy(
	ctx context.Context, run Runner, suspicion int, username, password, old string,
) (session Session, err error) {
	var id int64
	var hash string
	var active, staff bool
	err = run(ctx, func(ctx context.Context, q db.Querier) error {
		return q.QueryRow(ctx, `SELECT id, CASE WHEN is_active AND is_staff THEN password ELSE '' END, is_active, is_staff
			FROM auth_user WHERE username = $1`, username).Scan(&id, &hash, &active, &staff)
	})
	missing := errors.Is(err, pgx.ErrNoRows)
	if err != nil && !missing {
		return Session{}, fmt.Errorf("look up a user: %w", err)
	}
	s.db.Release(ctx) // no lease while hashing
	ok, err := s.hasher.verify(ctx, suspicion, password, hash)
	switch {
	case err != nil:
		return Session{}, err
	case missing:
		return Session{}, &refusedError{"", "there is no such user"}
	case !active:
		return Session{}, &refusedError{username, "the account is not active"}
	case !staff:
		return Session{}, &refusedError{username, "the account is not staff"}
	case !ok:
		return Session{}, &refusedError{username, whyNot(hash)}
	}
	err = run(ctx, func(ctx context.Context, q db.Querier) error {
		if err := endSession(ctx, q, old); err != nil {
			return err
		}
		if _, err := q.Exec(ctx, `UPDATE auth_user SET last_login = now() WHERE id = $1`, id); err != nil {
			return err
		}
		session, err = s.start(ctx, q, id, hash)
		return err
	})
	s.forget(old)
	return session, err
}

// start stores a new session for the user with that password hash, unless the password has changed. It also deletes
// expired sessions.
func (s *Service) start(ctx context.Context, q db.Querier, id int64, passwordHash string) (Session, error) {
	session := Session{newSecret(), s.now().Add(s.age)} // of the cookie: in the database its clock counts, for all servers
	key, _ := hashSecret(session.Secret)
	if _, err := q.Exec(ctx, `DELETE FROM ddtb_session WHERE expires < now()`); err != nil {
		return Session{}, err
	}
	tag, err := q.Exec(ctx, `INSERT INTO ddtb_session (secret_hash, user_id, password_mark, expires)
		SELECT $1, id, sha256(convert_to(password, 'UTF8')), now() + $3::float8 * interval '1 second' FROM auth_user WHERE id = $2 AND password = $4 AND is_active`,
		key[:], id, s.age.Seconds(), passwordHash)
	if err != nil {
		return Session{}, fmt.Errorf("start a session: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return Session{}, &refusedError{"", "the account was changed while the password was checked"}
	}
	return session, nil
}

// Logout ends the session: at once on this process; for others, see the package comment.
func (s *Service) Logout(ctx context.Context, secret string) error {
	defer s.forget(secret)
	return endSession(ctx, s.db, secret)
}

func endSession(ctx context.Context, q db.Querier, secret string) error {
	key, ok := hashSecret(secret)
	if !ok {
		return nil
	}
	_, err := q.Exec(ctx, `DELETE FROM ddtb_session WHERE secret_hash = $1`, key[:])
	return err
}

// ChangePassword changes the user's own password, ends all their sessions, and starts a new one. A wrong old password
// is ErrWrongPassword, and is slowed down like a login. A weak new password is Invalid.
func (s *Service) ChangePassword(ctx context.Context, u *User, old, password, address string) (Session, error) {
	return s.tries.try(u.Username, address, s.now(), func(int) (Session, error) { return s.changePassword(ctx, u, old, password) })
}

// ErrWrongPassword means that the old password is wrong.
var ErrWrongPassword = fault.New(fault.Forbidden, "Your old password was entered incorrectly. Please enter it again.")

func (s *Service) changePassword(ctx context.Context, u *User, old, password string) (session Session, err error) {
	var current string
	if err := s.db.QueryRow(ctx, `SELECT password FROM auth_user WHERE id = $1`, u.ID).Scan(&current); err != nil {
		return Session{}, fmt.Errorf("read the password: %w", err)
	}
	s.db.Release(ctx)
	if ok, err := s.hasher.verify(ctx, 0, old, current); err != nil {
		return Session{}, err
	} else if !ok {
		return Session{}, ErrWrongPassword
	}
	hash, err := s.HashPassword(ctx, password, *u)
	if err != nil {
		return Session{}, err
	}
	defer s.Forget()
	err = s.db.InTx(ctx, func(q db.Querier) error {
		if err := StorePassword(ctx, q, u.ID, hash); err != nil {
			return err
		}
		session, err = s.start(ctx, q, u.ID, hash)
		return err
	})
	return session, err
}

// load queries the session's user, and how long the session lasts by the database's clock: nil if there is none. ended is
// the username if it ended because the password hash has changed since the login.
func load(ctx context.Context, q db.Querier, key secretHash) (u *User, left time.Duration, ended string, err error) {
	var seconds float64
	var unchanged bool
	u, err = scanUser(q.QueryRow(ctx, `SELECT `+userSQL+`, extract(epoch FROM s.expires - now())::float8, s.password_mark = sha256(convert_to(u.password, 'UTF8'))
		FROM ddtb_session s JOIN auth_user u ON u.id = s.user_id
		WHERE s.secret_hash = $1 AND s.expires > now() AND u.is_active`, key[:]), &seconds, &unchanged)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, 0, "", nil
	case err != nil:
		return nil, 0, "", fmt.Errorf("look up a session: %w", err)
	case !unchanged:
		return nil, 0, u.Username, nil
	}
	return u, time.Duration(seconds * float64(time.Second)), "", nil
}
