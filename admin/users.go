package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/jackc/pgx/v5"

	"ddtb/app/auth"
	"ddtb/app/fault"
	"ddtb/app/web"
	"ddtb/db"
)

// newPassword is the new user form's field that is typed twice.
const newPassword = "new_password"

func checkUsername(value any) string {
	name, _ := value.(string)
	return auth.ValidateUsername(name)
}

func checkEmail(value any) string {
	if email, _ := value.(string); !auth.ValidEmail(email) {
		return "Enter a valid email address."
	}
	return ""
}

func forgetUsers(s *Site) { s.users.Forget() }

// hashNewPassword checks and hashes a new user's password.
func hashNewPassword(r *request, f *form) error {
	password := f.field(newPassword)
	if password == nil {
		return nil
	}
	text, _ := password.Value.(string)
	hash, err := r.site.users.HashPassword(r.ctx, text, auth.User{Username: f.Label})
	if problem, ok := errors.AsType[*fault.Error](err); ok && problem.Kind == fault.Invalid {
		password.Problem = problem.Public
		return errInvalid
	}
	f.extra["password"] = hash
	return err
}

// mayTouchUser prevents privilege escalation: only a superuser can change a superuser. The forms ensure that users only
// grant permissions that they have, see option.grants.
func mayTouchUser(ctx context.Context, q db.Querier, actor *auth.User, id int64) (string, error) {
	if actor.Superuser {
		return "", nil
	}
	var superuser bool
	err := q.QueryRow(ctx, `SELECT is_superuser FROM auth_user WHERE id = $1::bigint`, id).Scan(&superuser)
	if errors.Is(err, pgx.ErrNoRows) || (err == nil && !superuser) {
		return "", nil
	}
	return "Only a superuser may change or delete a superuser.", err
}

// mayDeleteUser also forbids deleting one's own account.
func mayDeleteUser(ctx context.Context, q db.Querier, actor *auth.User, id int64) (string, error) {
	if id == actor.ID {
		return "You can’t delete the account that you are signed in with.", nil
	}
	return mayTouchUser(ctx, q, actor, id)
}

// mayDeleteGroup: deleting a group revokes its permissions from its members, like unticking it.
func mayDeleteGroup(ctx context.Context, q db.Querier, actor *auth.User, id int64) (string, error) {
	found, err := q.Query(ctx, groupSQL+` WHERE g.id = $1::bigint`, id)
	groups, err := collectOptions(found, err)
	for _, o := range groups {
		if !actor.CanAll(o.grants) {
			return fmt.Sprintf("“%s” gives permissions that you don’t have, so you can’t take them away.", o.Label), nil
		}
	}
	return "", err
}

// heed returns Forbidden if the rule forbids one of the rows to this user. A nil rule allows all.
func (r *request) heed(ctx context.Context, q db.Querier, may rule, ids ...int64) error {
	if may == nil {
		return nil
	}
	for _, id := range ids {
		why, err := may(ctx, q, r.user, id)
		if err != nil {
			return fmt.Errorf("check a %s: %w", r.model.Singular, err)
		}
		if why != "" {
			return fault.New(fault.Forbidden, "%s", why)
		}
	}
	return nil
}

// permissionOptions returns all permissions, each granting itself.
func permissionOptions(ctx context.Context, q db.Querier) ([]option, error) {
	found, err := q.Query(ctx, `SELECT p.id::bigint, ct.app_label || ' | ' || ct.model, p.name,
			ARRAY[ct.app_label || '.' || p.codename]
		FROM auth_permission p JOIN django_content_type ct ON ct.id = p.content_type_id
		ORDER BY ct.app_label, ct.model, p.id`)
	return collectOptions(found, err)
}

// groupSQL selects groups as options, each granting its permissions.
const groupSQL = `SELECT g.id::bigint, '', g.name, ARRAY(
		SELECT ct.app_label || '.' || p.codename FROM auth_group_permissions gp
		JOIN auth_permission p ON p.id = gp.permission_id JOIN django_content_type ct ON ct.id = p.content_type_id
		WHERE gp.group_id = g.id)
	FROM auth_group g`

func groupOptions(ctx context.Context, q db.Querier) ([]option, error) {
	found, err := q.Query(ctx, groupSQL+` ORDER BY g.name, g.id`)
	return collectOptions(found, err)
}

func collectOptions(found pgx.Rows, err error) ([]option, error) {
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(found, func(r pgx.CollectableRow) (o option, err error) {
		return o, r.Scan(&o.ID, &o.Group, &o.Label, &o.grants)
	})
}

type passwordPage struct {
	frame
	Rules   []string
	Own     bool // the old password is required
	For     string
	Old     string // the problem with the old password
	New     string // the problem with the new one
	Problem string
}

// setPasswordForm shows the form for another user's password.
func (s *Site) setPasswordForm(r *request) error {
	target, err := r.passwordTarget()
	if err != nil {
		return r.orGone(err)
	}
	return r.showSetPassword(target, "")
}

// setPassword sets another user's password, which ends that user's sessions.
func (s *Site) setPassword(r *request) error {
	target, err := r.passwordTarget()
	if err != nil {
		return r.orGone(err)
	}
	text, problem := NewPassword{}.parse(NewPassword{}.take(r.form, ""))
	if problem != "" {
		return r.showSetPassword(target, problem)
	}
	hash, err := s.users.HashPassword(r.ctx, text.(string), *target)
	if problem, ok := errors.AsType[*fault.Error](err); ok && problem.Kind == fault.Invalid {
		return r.showSetPassword(target, problem.Public)
	}
	if err != nil {
		return err
	}
	err = s.db.InTx(r.ctx, func(q db.Querier) error {
		if err := r.mayHavePassword(q, target.ID); err != nil {
			return err
		}
		if err := auth.StorePassword(r.ctx, q, target.ID, hash); err != nil {
			return err
		}
		what := []change{{Changed: &changed{Fields: []string{"password"}}}}
		return r.note(r.ctx, q, flagChange, user, target.ID, target.Username, what)
	})
	if err != nil {
		return err
	}
	s.users.Forget()
	r.tell(message{
		Class: "good", Before: "Password changed successfully for “", Object: target.Username,
		Path: user.path(target.ID, "change"), After: "”. Their sessions have ended.",
	})
	return r.to(user.path(target.ID, "change"))
}

// passwordTarget returns the user whose password this page sets, if the requesting user may set it.
func (r *request) passwordTarget() (*auth.User, error) {
	r.model = user
	if !r.can(user, actionChange) {
		return nil, fault.New(fault.Forbidden, "You don’t have permission to change users. Ask a superuser for it.")
	}
	id, ok := r.id()
	if !ok {
		return nil, errGone
	}
	target, err := auth.UserByID(r.ctx, r.site.db, id)
	if fault.KindOf(err) == fault.NotFound {
		return nil, errGone
	}
	if err != nil {
		return nil, err
	}
	return target, r.mayHavePassword(r.site.db, id)
}

// mayHavePassword requires all permissions of the account's owner: setting a password allows signing in with it.
func (r *request) mayHavePassword(q db.Querier, id int64) error {
	target, err := auth.UserByID(r.ctx, q, id)
	if err != nil || r.user.Includes(target) {
		return err
	}
	return fault.New(fault.Forbidden,
		"%s may do what you may not, so only who has the same permissions may set their password.", target.Username)
}

func (r *request) showSetPassword(target *auth.User, problem string) error {
	crumbs := append(r.crumbs(&row{id: target.ID, label: target.Username}, ""), web.Link{Text: "Change password"})
	return r.show(http.StatusOK, "password.html", passwordPage{
		frame: r.frame("Change password: "+target.Username, crumbs...),
		Rules: auth.PasswordRules(), For: target.Username, New: problem,
	})
}
