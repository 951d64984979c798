package localpg

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// copyCluster makes the directory's data a copy of a running server's. A server on it then follows that server as a hot
// standby. It does nothing if there is data already.
func (f *directory) copyCluster(ctx context.Context, p programs, of *Server) error {
	if major, err := f.major(); err != nil || major != 0 {
		return err
	}
	if err := os.RemoveAll(f.unfinished()); err != nil {
		return err
	}
	if err := os.WriteFile(f.password(), []byte(of.password+"\n"), 0o600); err != nil {
		return err
	}
	if err := os.Mkdir(f.unfinished(), 0o700); err != nil {
		return err
	}
	if err := f.acct.own(f.unfinished()); err != nil {
		return err
	}
	cmd := f.acct.as(exec.Command(filepath.Join(p.bin, "pg_basebackup"), //nolint:noctx // run minds ctx
		"--pgdata="+f.unfinished(), "--checkpoint=fast", "--write-recovery-conf", "--no-sync"))
	cmd.Dir = f.path
	cmd.Env = append(cmd.Env, "PGHOST=127.0.0.1", "PGPORT="+strconv.Itoa(of.port), "PGUSER="+Superuser, "PGPASSWORD="+of.password)
	if out, err := run(ctx, cmd); err != nil {
		return fmt.Errorf("pg_basebackup: %w: %s", err, out)
	}
	return os.Rename(f.unfinished(), f.data())
}
