package admin

import (
	"errors"
	"net/http"

	"ddtb/app/auth"
	"ddtb/app/fault"
	"ddtb/app/web"
	"ddtb/db"
)

// The pages for a user's own password, and for setting another user's.

type passwordPage struct {
	frame
	Rules   []string
	For     string // another user; "": the own password, which requires the old one
	Old     string // the problem with the old password
	New     string // the problem with the new one
	Problem string
}

func (s *Site) passwordForm(r *request) error { return r.showPassword(http.StatusOK, passwordPage{}) }

// changePassword changes the user's own password, and ends the user's other sessions.
func (s *Site) changePassword(r *request) error {
	password := r.form.Get("new_password1")
	if problem := passwordProblem(password, r.form.Get("new_password2")); problem != "" {
		return r.showPassword(http.StatusOK, passwordPage{New: problem})
	}
	err := s.Users.ChangeOwnPassword(r.Context, r.user, r.form.Get("old_password"), password)
	known, ok := errors.AsType[*fault.Error](err)
	switch {
	case err == nil:
		return r.to(root + "password_change/done/")
	case errors.Is(err, auth.ErrWrongPassword):
		return r.showPassword(http.StatusOK, passwordPage{Old: known.Public})
	case ok && known.Kind == fault.Invalid:
		return r.showPassword(http.StatusOK, passwordPage{New: known.Public})
	case ok && known.Kind == fault.TooManyTries:
		web.SetRetryAfter(r.Context, known.RetryAfter)
		return r.showPassword(http.StatusTooManyRequests, passwordPage{Problem: known.Public})
	}
	return err
}

func (r *request) showPassword(status int, p passwordPage) error {
	p.Rules = auth.PasswordRules()
	p.frame = r.frame("Password change", web.Link{Text: "Password change"})
	return r.show(status, "password.html", p)
}

func (s *Site) passwordDone(r *request) error {
	p := r.frame("Password change successful", web.Link{Text: "Password change"})
	return r.show(http.StatusOK, "password_done.html", p)
}

func (s *Site) setPasswordForm(r *request) error {
	target, err := r.passwordTarget(s.DB.Read())
	if err != nil {
		return err
	}
	return r.showSetPassword(target, "")
}

// setPassword sets another user's password, which ends that user's sessions.
func (s *Site) setPassword(r *request) error {
	target, err := r.passwordTarget(s.DB)
	if err != nil {
		return err
	}
	password := r.form.Get("password1")
	if problem := passwordProblem(password, r.form.Get("password2")); problem != "" {
		return r.showSetPassword(target, problem)
	}
	hash, err := s.Users.HashPassword(r.ctx, password, *target)
	if problem, ok := errors.AsType[*fault.Error](err); ok && problem.Kind == fault.Invalid {
		return r.showSetPassword(target, problem.Public)
	}
	if err != nil {
		return err
	}
	err = s.DB.InTx(r.ctx, func(q db.Querier) error {
		if _, err := r.passwordTarget(q); err != nil { // hashing takes a while: it may have become a superuser's
			return err
		}
		if err := auth.StorePassword(r.ctx, q, target.ID, hash); err != nil {
			return err
		}
		return r.note(q, flagChange, target.ID, target.Username, []change{{edited: {Fields: []string{"password"}}}})
	})
	if err != nil {
		return err
	}
	s.forgetUsers(user)
	r.notify(message{
		Class: "good", Before: "Password changed successfully for “", Object: target.Username,
		Path: user.path(target.ID, "change"), After: "”. Their sessions have ended.",
	})
	return r.to(user.path(target.ID, "change"))
}

// passwordTarget returns the user whose password this page sets. That requires all permissions of that user: it allows
// signing in as them.
func (r *request) passwordTarget(q db.Querier) (*auth.User, error) {
	r.model = user
	if err := r.allowed(actionChange); err != nil {
		return nil, err
	}
	target, err := auth.UserByID(r.ctx, q, r.id)
	switch {
	case fault.KindOf(err) == fault.NotFound:
		return nil, errGone
	case err != nil || r.user.Includes(target):
		return target, err
	}
	return nil, fault.New(fault.Forbidden,
		"%s may do what you may not, so only users with the same permissions may set their password.", target.Username)
}

func (r *request) showSetPassword(target *auth.User, problem string) error {
	crumbs := append(r.crumbs(&row{id: target.ID, label: target.Username}, ""), web.Link{Text: "Change password"})
	return r.show(http.StatusOK, "password.html", passwordPage{
		frame: r.frame("Change password: "+target.Username, crumbs...),
		Rules: auth.PasswordRules(), For: target.Username, New: problem,
	})
}
