package localpg

import (
	"os"
	"path/filepath"
	"time"

	"ddtb/config"
	"ddtb/db/localpg/system"
)

// Running returns the configuration for a database of the server that another process runs in dir, as Database made it
// there. It changes nothing. ok is false if no server runs, if this user may not read its files, or if Start would
// refuse the directory.
func Running(dir, database, role string) (login config.Database, ok bool) {
	acct, err := serverAccount()
	if err != nil {
		return login, false
	}
	f, err := checkedDirectory(dir, acct)
	if err != nil { // another user could have written what is there
		return login, false
	}
	lock, err := os.Open(filepath.Join(f.path, lockName))
	if err != nil {
		return login, false
	}
	defer func() { _ = lock.Close() }()
	if !system.Locked(lock) {
		return login, false
	}
	s := &Server{directory: f}
	file, err := s.passwordFile(role)
	if err != nil {
		return login, false
	}
	password, err := readSecret(file)
	if err != nil {
		return login, false
	}
	if _, s.port = f.lastRun(); s.port == 0 {
		return login, false
	}
	return s.login(database, role, password, file), true
}

// Since returns when the data of dir was made, or zero if there is none.
func Since(dir string) time.Time {
	info, err := os.Stat(filepath.Join((&directory{path: dir}).data(), "PG_VERSION"))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}
