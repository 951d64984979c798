package admin

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"ddtb/app/auth"
	"ddtb/app/fault"
	"ddtb/db"
)

// What only users and groups need.

// newPassword is the new user form's field that is typed twice.
const newPassword = "new_password"

func checkEmail(email string) string {
	if !auth.ValidEmail(email) {
		return "Enter a valid email address."
	}
	return ""
}

func hashNewPassword(r *request, f *form) error {
	password := f.field(newPassword)
	if password == nil {
		return nil
	}
	text, _ := password.Value.(string)
	hash, err := r.site.Users.HashPassword(r.ctx, text, auth.User{Username: f.Label})
	if problem, ok := errors.AsType[*fault.Error](err); ok && problem.Kind == fault.Invalid {
		password.Problem = problem.Public
		return errInvalid
	}
	f.extra = map[string]any{"password": hash}
	return err
}

// protectUser prevents privilege escalation: only a superuser can change a superuser. The forms ensure that users only
// grant permissions that they have, see option.grants. It also forbids deleting one's own account.
func protectUser(ctx context.Context, q db.Querier, actor *auth.User, action string, id int64) error {
	if action == actionDelete && id == actor.ID {
		return fault.New(fault.Forbidden, "You can’t delete the account that you are signed in with.")
	}
	if actor.Superuser {
		return nil
	}
	target, err := auth.UserByID(ctx, q, id)
	if err == nil && target.Superuser {
		return fault.New(fault.Forbidden, "Only a superuser may change or delete a superuser.")
	}
	return err
}

// protectGroup: deleting a group revokes its permissions from its members, like unticking it.
func protectGroup(ctx context.Context, q db.Querier, actor *auth.User, action string, id int64) error {
	if action != actionDelete {
		return nil
	}
	groups, err := collectOptions(q.Query(ctx, groupSQL+` WHERE g.id = $1::bigint`, id))
	for _, o := range groups {
		if !actor.CanAll(o.grants) {
			return fault.New(fault.Forbidden, "“%s” gives permissions that you don’t have, so you can’t take them away.", o.Label)
		}
	}
	return err
}

// permissionSQL selects permissions as options, each granting itself.
const permissionSQL = `SELECT p.id::bigint, ct.app_label || ' | ' || ct.model, p.name, ARRAY[ct.app_label || '.' || p.codename]
	FROM auth_permission p JOIN django_content_type ct ON ct.id = p.content_type_id
	ORDER BY ct.app_label, ct.model, p.id`

// groupSQL selects groups as options, each granting its permissions.
const groupSQL = `SELECT g.id::bigint, '', g.name, ARRAY(
		SELECT ct.app_label || '.' || p.codename FROM auth_group_permissions gp
		JOIN auth_permission p ON p.id = gp.permission_id JOIN django_content_type ct ON ct.id = p.content_type_id
		WHERE gp.group_id = g.id)
	FROM auth_group g`

func collectOptions(found pgx.Rows, err error) ([]option, error) {
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(found, func(r pgx.CollectableRow) (o option, err error) {
		return o, r.Scan(&o.ID, &o.Group, &o.Label, &o.grants)
	})
}
