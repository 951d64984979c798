package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"ddtb/app/fault"
	"ddtb/db"
)

// User is an active user with the data for pages. It is shared between requests: don't modify it.
type User struct {
	ID          int64
	Username    string
	FirstName   string
	LastName    string
	Email       string
	Staff       bool // may sign in to the admin
	Superuser   bool // may do everything
	permissions map[string]bool
}

// Can reports whether the user has a permission, such as "polls.add_question", directly or through a group.
func (u *User) Can(permission string) bool { return u.Superuser || u.permissions[permission] }

// CanAll reports whether the user has all of the permissions.
func (u *User) CanAll(permissions []string) bool {
	return !slices.ContainsFunc(permissions, func(p string) bool { return !u.Can(p) })
}

// Includes reports whether the user has all permissions of the other.
func (u *User) Includes(other *User) bool {
	return u.Superuser || !other.Superuser && u.CanAll(slices.Collect(maps.Keys(other.permissions)))
}

// ShortName returns the name for addressing the user.
func (u *User) ShortName() string {
	return cmp.Or(u.FirstName, u.Username)
}

// permissionsSQL selects the names of auth_user u's permissions, direct and through groups.
const permissionsSQL = `ARRAY(
	SELECT ct.app_label || '.' || p.codename
	FROM auth_permission p JOIN django_content_type ct ON ct.id = p.content_type_id
	WHERE p.id IN (
		SELECT permission_id FROM auth_user_user_permissions WHERE user_id = u.id
		UNION
		SELECT gp.permission_id FROM auth_group_permissions gp JOIN auth_user_groups ug USING (group_id)
		WHERE ug.user_id = u.id))`

const userSQL = `u.id, u.username, u.first_name, u.last_name, u.email, u.is_staff, u.is_superuser, ` + permissionsSQL

// scanUser scans the columns of userSQL and any that follow.
func scanUser(row pgx.Row, more ...any) (*User, error) {
	u := &User{permissions: map[string]bool{}}
	var names []string
	to := append([]any{&u.ID, &u.Username, &u.FirstName, &u.LastName, &u.Email, &u.Staff, &u.Superuser, &names}, more...)
	if err := row.Scan(to...); err != nil {
		return nil, err
	}
	for _, name := range names {
		u.permissions[name] = true
	}
	return u, nil
}

// UserByID reads a user with their permissions through q, active or not.
func UserByID(ctx context.Context, q db.Querier, id int64) (*User, error) {
	return one(q.QueryRow(ctx, `SELECT `+userSQL+` FROM auth_user u WHERE u.id = $1`, id))
}

// UserByName reads a user with their permissions, active or not.
func (s *Service) UserByName(ctx context.Context, username string) (*User, error) {
	return one(s.db.QueryRow(ctx, `SELECT `+userSQL+` FROM auth_user u WHERE u.username = $1`, NormalUsername(username)))
}

func one(row pgx.Row) (*User, error) {
	u, err := scanUser(row)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fault.New(fault.NotFound, "There is no such user.")
	}
	return u, err
}

// CreateSuperuser creates a user with all permissions, and returns their id. An invalid username or password is
// Invalid, with all mistakes; a username that exists is Conflict. weak allows a weak password, but none that is empty or
// longer than MaxPassword.
func (s *Service) CreateSuperuser(ctx context.Context, username, email, password string, weak bool) (id int64, err error) {
	u := User{Username: NormalUsername(username), Email: NormalEmail(email)}
	if problem := ValidateUsername(u.Username); problem != "" {
		return 0, fault.New(fault.Invalid, "Username: %s", problem)
	}
	if !ValidEmail(u.Email) {
		return 0, fault.New(fault.Invalid, "Enter a valid email address.")
	}
	var hash string
	if weak && password != "" && len(password) <= MaxPassword {
		hash, err = s.hasher.hash(ctx, password)
	} else {
		hash, err = s.HashPassword(ctx, password, u)
	}
	if err != nil {
		return 0, err
	}
	err = s.db.QueryRow(ctx, `INSERT INTO auth_user
		(username, email, password, is_superuser, is_staff, is_active, first_name, last_name, date_joined)
		VALUES ($1, $2, $3, true, true, true, '', '', now()) RETURNING id`, u.Username, u.Email, hash).Scan(&id)
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok && pe.Code == pgerrcode.UniqueViolation {
		return 0, fault.New(fault.Conflict, "Username: that username is already taken.")
	}
	return id, err
}

// HashPassword encodes the user's new password, or rejects it with Invalid. It first releases the request's lease, so
// that none is held while hashing.
func (s *Service) HashPassword(ctx context.Context, password string, owner User) (string, error) {
	if problems := ValidatePassword(password, owner); len(problems) > 0 {
		return "", fault.New(fault.Invalid, "%s", strings.Join(problems, " "))
	}
	s.db.Release(ctx)
	return s.hasher.hash(ctx, password)
}

// SetPassword sets the user's password without the old one, and ends all their sessions. A weak password is Invalid,
// and an unknown user NotFound.
func (s *Service) SetPassword(ctx context.Context, username, password string) error {
	u, err := s.UserByName(ctx, username)
	if err != nil {
		return err
	}
	hash, err := s.HashPassword(ctx, password, *u)
	if err != nil {
		return err
	}
	defer s.Forget()
	return s.db.InTx(ctx, func(q db.Querier) error { return StorePassword(ctx, q, u.ID, hash) })
}

// StorePassword stores the result of HashPassword, and ends all the user's sessions. Call Forget after the commit.
func StorePassword(ctx context.Context, q db.Querier, id int64, hash string) error {
	if _, err := q.Exec(ctx, `UPDATE auth_user SET password = $2 WHERE id = $1`, id, hash); err != nil {
		return fmt.Errorf("store password: %w", err)
	}
	_, err := q.Exec(ctx, `DELETE FROM ddtb_session WHERE user_id = $1`, id)
	return err
}

// NormalEmail lower-cases the domain, as Django does.
func NormalEmail(email string) string {
	email = strings.TrimSpace(email)
	if at := strings.LastIndexByte(email, '@'); at >= 0 {
		return email[:at] + strings.ToLower(email[at:])
	}
	return email
}

// ValidEmail reports whether an address can be stored: empty, or with one @ between two parts and no space.
func ValidEmail(email string) bool {
	if email == "" {
		return true
	}
	local, domain, ok := strings.Cut(email, "@")
	return ok && local != "" && strings.Contains(strings.Trim(domain, "."), ".") && len(email) <= 254 &&
		!strings.ContainsAny(domain, "@") && !strings.ContainsFunc(email, badInEmail)
}

func badInEmail(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`<>()[],;:\"`, r) }
