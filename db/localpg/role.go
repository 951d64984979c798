package localpg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
)

// Database ensures that there is a role that may only log in, and a database that it owns. It returns the role's
// configuration. The password is random and stays the same between runs.
func (s *Server) Database(ctx context.Context, name, role string) (config.Database, error) {
	file, err := s.passwordFile(role)
	if err != nil {
		return config.Database{}, err
	}
	password, err := readSecret(file)
	if errors.Is(err, fs.ErrNotExist) {
		password, err = s.directory.newSecret(file)
	}
	if err != nil {
		return config.Database{}, err
	}
	conn, err := s.Connect(ctx, "postgres")
	if err != nil {
		return config.Database{}, err
	}
	defer func() { _ = conn.Close(ctx) }()
	if err := ensureRole(ctx, conn, role, password); err != nil {
		return config.Database{}, fmt.Errorf("role %q: %w", role, err)
	}
	if err := ensureDatabase(ctx, conn, name, role); err != nil {
		return config.Database{}, fmt.Errorf("database %q: %w", name, err)
	}
	return s.login(name, role, password, file), s.writePassFile(role, password)
}

// PassFile returns the file with the passwords of dir's superuser and of the last role of Database, as libpq reads it:
// commands name it in PGPASSFILE or as passfile=… in place of a password.
func PassFile(dir string) string { return filepath.Join(dir, "pgpass") }

// writePassFile needs no escapes: the passwords are base32.
func (s *Server) writePassFile(role, password string) error {
	lines := fmt.Sprintf("127.0.0.1:*:*:%s:%s\n127.0.0.1:*:*:%s:%s\n", role, password, Superuser, s.password)
	return os.WriteFile(PassFile(s.directory.path), []byte(lines), 0o600)
}

var plainName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (s *Server) passwordFile(role string) (string, error) {
	if !plainName.MatchString(role) || role == Superuser {
		return "", fmt.Errorf("%q is no name for a role here: use letters, digits and _, and not %q", role, Superuser)
	}
	return filepath.Join(s.directory.path, role+".password"), nil
}

// ensureRole lets the server quote name and password: a utility statement takes no parameters.
func ensureRole(ctx context.Context, conn *pgx.Conn, role, password string) error {
	var sql string
	err := conn.QueryRow(ctx, `SELECT format(
		CASE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = $1) THEN 'ALTER' ELSE 'CREATE' END ||
		' ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD %L', $1::text, $2::text)`, role, password).Scan(&sql)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql)
	return err
}

func ensureDatabase(ctx context.Context, conn *pgx.Conn, name, owner string) error {
	var there bool
	err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&there)
	if err != nil || there {
		return err
	}
	_, err = conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()+" OWNER "+pgx.Identifier{owner}.Sanitize())
	return err
}
