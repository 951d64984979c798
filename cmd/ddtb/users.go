package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/charmbracelet/x/ansi"
	"github.com/spf13/cobra"

	"ddtb/app/auth"
	"ddtb/app/fault"
	"ddtb/config"
	"ddtb/db"
)

func (c *cli) createsuperuserCommand() *cobra.Command {
	var username, email string
	var noinput bool
	cmd := &cobra.Command{
		Use:   "createsuperuser",
		Short: "Make a user who may do everything in the admin",
		Long: `Make a user who may do everything in the admin. The password is asked for twice.

With --noinput nothing is asked: the name, the mail address and the password
come from DJANGO_SUPERUSER_USERNAME, DJANGO_SUPERUSER_EMAIL and
DJANGO_SUPERUSER_PASSWORD, as with Django. There a user who exists already is
left as they are. A weak password is accepted, with a warning, where server.addr
is on the loopback interface.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			username = cmp.Or(username, c.environment("DJANGO_SUPERUSER_USERNAME"))
			email = cmp.Or(email, c.environment("DJANGO_SUPERUSER_EMAIL"))
			return c.withUsers(cmd.Context(), func(users *auth.Service, server config.Server) error {
				if noinput {
					return c.createSilently(cmd.Context(), users, isPrivate(server), username, email)
				}
				return c.createAsking(cmd.Context(), users, username, email)
			})
		},
	}
	cmd.Flags().StringVar(&username, "username", "", "the name to sign in with")
	cmd.Flags().StringVar(&email, "email", "", "the mail address, which may stay empty")
	cmd.Flags().BoolVar(&noinput, "noinput", false, "ask nothing, for containers")
	return cmd
}

func (c *cli) changepasswordCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "changepassword USER",
		Short: "Give a user a new password, and end their sessions",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withUsers(cmd.Context(), func(users *auth.Service, _ config.Server) error {
				u, err := users.UserByName(cmd.Context(), args[0])
				if fault.KindOf(err) == fault.NotFound {
					return fmt.Errorf("there is no user %q: `ddtb createsuperuser` makes one", ansi.Truncate(args[0], 40, "…"))
				}
				if err != nil {
					return err
				}
				p := &prompt{cli: c, ctx: cmd.Context(), lines: bufio.NewReader(c.in)}
				password, err := p.password(*u, false)
				if err != nil {
					return err
				}
				if err := users.SetPassword(cmd.Context(), args[0], password); err != nil {
					return err
				}
				c.say("The password of %s was changed, and their sessions were ended.\n", u.Username)
				return nil
			})
		},
	}
}

func (c *cli) withUsers(ctx context.Context, do func(*auth.Service, config.Server) error) (err error) {
	cfg, err := c.loadForServer()
	if err != nil {
		return err
	}
	return withDB(ctx, cfg.Databases["default"], func(d *db.DB) error { return do(auth.New(d, cfg.Admin, nil), cfg.Server) })
}

// withDB opens the database for a command.
func withDB(ctx context.Context, cfg config.Database, do func(*db.DB) error) error {
	d, err := db.Open(ctx, cfg)
	if err != nil {
		return err
	}
	err = do(d)
	return cmp.Or(err, d.Close(context.WithoutCancel(ctx)))
}

// isPrivate reports whether the server is only reachable from this machine: a weak password is no risk there.
func isPrivate(server config.Server) bool {
	host, _, err := net.SplitHostPort(server.Addr)
	ip := net.ParseIP(host)
	return err == nil && server.BaseURL == "" && len(server.TrustedProxies) == 0 && (host == "localhost" || ip != nil && ip.IsLoopback())
}

func (c *cli) createSilently(ctx context.Context, users *auth.Service, private bool, username, email string) error {
	password := c.environment("DJANGO_SUPERUSER_PASSWORD")
	if username == "" || password == "" {
		return errors.New("--noinput needs --username or DJANGO_SUPERUSER_USERNAME, and DJANGO_SUPERUSER_PASSWORD in the environment")
	}
	problems := auth.ValidatePassword(password, auth.User{Username: auth.NormalUsername(username), Email: email})
	_, err := users.CreateSuperuser(ctx, username, email, password, private)
	if err == nil && len(problems) > 0 {
		c.log.Warn("the password is weak; it is accepted since server.addr is on the loopback interface", "problems", strings.Join(problems, " "))
	}
	if fault.KindOf(err) == fault.Conflict {
		c.say("There is a user %s already, who stays as they are.\n", username)
		return nil
	}
	if err == nil {
		c.say("Superuser %s was made.\n", username)
	}
	return err
}

func (c *cli) createAsking(ctx context.Context, users *auth.Service, username, email string) (err error) {
	p := &prompt{cli: c, ctx: ctx, lines: bufio.NewReader(c.in), instead: "run it in a terminal, or with --noinput"}
	if username, err = p.newUsername(users, username); err != nil {
		return err
	}
	if !auth.ValidEmail(auth.NormalEmail(email)) {
		return fmt.Errorf("the email address %q can't be used: enter a valid one", ansi.Truncate(email, 40, "…"))
	}
	for asked := email != ""; !asked; {
		if email, err = p.ask("Email address (may stay empty): "); err != nil {
			return err
		}
		if asked = auth.ValidEmail(auth.NormalEmail(email)); !asked {
			c.say("Enter a valid email address.\n")
		}
	}
	password, err := p.password(auth.User{Username: username, Email: email}, true)
	if err != nil {
		return err
	}
	if _, err := users.CreateSuperuser(ctx, username, email, password, true); err != nil {
		return err
	}
	c.say("Superuser %s was made.\n", username)
	return nil
}

// newUsername asks until it gets a valid, free name. It does not ask again for a name from the command line.
func (p *prompt) newUsername(users *auth.Service, given string) (username string, err error) {
	for {
		if username = given; given == "" {
			if username, err = p.ask("Username: "); err != nil {
				return "", err
			}
		}
		problem, err := usernameProblem(p.ctx, users, username)
		switch {
		case err != nil || problem == "":
			return username, err
		case given != "":
			return "", fmt.Errorf("the username %q can't be had: %s", given, problem)
		}
		p.say("%s\n", problem)
	}
}

// usernameProblem returns why the name can't be used, or "". It is reported before a password is typed.
func usernameProblem(ctx context.Context, users *auth.Service, username string) (string, error) {
	if problem := auth.ValidateUsername(auth.NormalUsername(username)); problem != "" {
		return problem, nil
	}
	_, err := users.UserByName(ctx, username)
	switch {
	case err == nil:
		return "That username is already taken.", nil
	case fault.KindOf(err) == fault.NotFound:
		return "", nil
	}
	return "", err
}
