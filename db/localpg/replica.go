package localpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// copyCluster makes the directory's data a copy of a stopped server's. A server on it follows that server as a hot
// standby. It does nothing if there is data already.
func (f *directory) copyCluster(ctx context.Context, of *Server) error {
	if major, err := f.major(); err != nil || major != 0 {
		return err
	}
	select {
	case <-of.Done():
	default:
		return fmt.Errorf("the server on port %d runs: stop it before its data is copied", of.port)
	}
	if err := os.RemoveAll(f.unfinished()); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "cp", "-Rp", of.directory.data(), f.unfinished()).CombinedOutput(); err != nil {
		return fmt.Errorf("copy the data of the server on port %d: %w: %s", of.port, err, out)
	}
	primary := fmt.Sprintf("primary_conninfo = 'host=127.0.0.1 port=%d user=%s password=%s'\n", of.port, Superuser, of.password)
	if err := errors.Join(
		os.WriteFile(f.password(), []byte(of.password+"\n"), 0o600),
		os.RemoveAll(filepath.Join(f.unfinished(), "pg_replslot")), f.putDir("pg_replslot"), // the primary's slots would keep WAL here
		f.put("standby.signal", ""), f.put("postgresql.auto.conf", primary),
	); err != nil {
		return err
	}
	return os.Rename(f.unfinished(), f.data())
}

func (f *directory) putDir(path string) error {
	name := filepath.Join(f.unfinished(), path)
	if err := os.MkdirAll(name, 0o700); err != nil {
		return err
	}
	return f.acct.own(name)
}

// put appends text to a file, which it makes if there is none.
func (f *directory) put(path, text string) error {
	name := filepath.Join(f.unfinished(), path)
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close(), f.acct.own(name))
}
